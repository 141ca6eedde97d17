/* Where the sanitized monitor leaves its findings: its stderr is /dev/null. */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

const char *__asan_default_options(void)
{
	return "log_path=" SANITIZER_REPORT ":abort_on_error=1:detect_leaks=1";
}

const char *__ubsan_default_options(void)
{
	return "log_path=" SANITIZER_REPORT ":print_stacktrace=1";
}
