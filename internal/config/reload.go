package config

// TakeOver returns the configuration of a daemon that runs with c and finds,
// when it reads its configuration again, next: c with next's values of the keys
// that can change while it runs. pending names the others that differ: they need
// a restart. Both must be as Load returns them, or both as ResolveRuntimes does.
func (c Config) TakeOver(next Config) (merged Config, pending []string) {
	merged = c
	for _, k := range keys() {
		switch {
		case k.change == live:
			k.value.take(&merged, &next)
		case k.value.toml(&c) != k.value.toml(&next):
			pending = append(pending, k.name)
		}
	}
	merged.Runtimes = next.Runtimes // their keys are live, all of them
	return merged, pending
}

// Changes names what differs between two configurations: keys
// ("log_level", "runtimes.crun.args"), and runtimes of which only one has any
// ("runtimes.crun"). The order is the documentation's.
func Changes(before, after Config) []string {
	changed := differing("", keys(), before, after)
	for _, name := range runtimeNames(union(before.Runtimes, after.Runtimes)) {
		full := runtimesTable + "." + name
		old, had := before.Runtimes[name]
		now, has := after.Runtimes[name]
		if had != has {
			changed = append(changed, full)
		} else {
			changed = append(changed, differing(full+".", runtimeKeys(), old, now)...)
		}
	}
	return changed
}

func differing[C any](prefix string, table []key[C], before, after C) []string {
	var out []string
	for _, k := range table {
		if k.value.toml(&before) != k.value.toml(&after) {
			out = append(out, prefix+k.name)
		}
	}
	return out
}

// union has the names of both.
func union(a, b map[string]Runtime) map[string]Runtime {
	for _, name := range runtimeNames(b) {
		a = withRuntime(a, name, b[name])
	}
	return a
}

// Same reports whether two runtimes are configured alike.
func (r Runtime) Same(other Runtime) bool {
	return len(differing("", runtimeKeys(), r, other)) == 0
}
