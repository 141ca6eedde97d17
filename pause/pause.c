/*
 * pause holds a pod's namespaces open: it reaps every child that it gets and
 * exits 0 on SIGTERM or SIGINT. It has no libc, so that a pod costs as few
 * pages as possible: one page of code and one of stack.
 */

typedef unsigned long word;

enum {
	SIGINT_ = 2,
	SIGTERM_ = 15,
	SIGCHLD_ = 17,
	SIG_BLOCK_ = 0,
	P_ALL_ = 0,
	WNOHANG_ = 1,
	WEXITED_ = 4,
};

#if defined(__x86_64__)

enum { SYS_rt_sigprocmask_ = 14, SYS_rt_sigtimedwait_ = 128, SYS_exit_group_ = 231, SYS_waitid_ = 247 };

static long kernel(long number, word a, word b, word c, word d, word e)
{
	long result;
	register word r10 __asm__("r10") = d;
	register word r8 __asm__("r8") = e;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return result;
}

__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tand $-16, %rsp\n\tcall pause_main\n");

#elif defined(__aarch64__)

enum { SYS_rt_sigprocmask_ = 135, SYS_rt_sigtimedwait_ = 137, SYS_exit_group_ = 94, SYS_waitid_ = 95 };

static long kernel(long number, word a, word b, word c, word d, word e)
{
	register word x8 __asm__("x8") = (word)number;
	register word x0 __asm__("x0") = a;
	register word x1 __asm__("x1") = b;
	register word x2 __asm__("x2") = c;
	register word x3 __asm__("x3") = d;
	register word x4 __asm__("x4") = e;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	return (long)x0;
}

__asm__(".globl _start\n_start:\n\tmov x29, #0\n\tmov x30, #0\n\tbl pause_main\n");

#else
#error "pause: add the system call convention of this architecture"
#endif

static word bit(int signal)
{
	return 1UL << (signal - 1);
}

/* Collects every child that is dead. */
static void reap(void)
{
	int info[32]; /* a siginfo_t; its first word stays 0 when no child is dead */

	do {
		info[0] = 0;
	} while (kernel(SYS_waitid_, P_ALL_, 0, (word)info, WEXITED_ | WNOHANG_, 0) == 0 && info[0] != 0);
}

__attribute__((noreturn, used)) void pause_main(void)
{
	/* Blocked, never handled: as PID 1 of a namespace we get no default
	 * action, and a blocked signal waits until we ask for it. */
	word wanted = bit(SIGINT_) | bit(SIGTERM_) | bit(SIGCHLD_);
	long got;

	kernel(SYS_rt_sigprocmask_, SIG_BLOCK_, (word)&wanted, 0, sizeof(wanted), 0);
	do {
		reap();
		got = kernel(SYS_rt_sigtimedwait_, (word)&wanted, 0, 0, sizeof(wanted), 0);
	} while (got != SIGTERM_ && got != SIGINT_);
	for (;;)
		kernel(SYS_exit_group_, 0, 0, 0, 0, 0);
}
