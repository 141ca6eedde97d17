package config

import (
	"fmt"
	"strings"
)

// Effective returns the merged configuration as TOML, with a comment at each
// value that says where it came from. It reads back as the same configuration.
func (l *Loaded) Effective() string {
	var b strings.Builder
	for _, k := range keys() {
		l.line(&b, k.name, k.name, k.value.toml(&l.Config))
	}
	for _, name := range runtimeNames(l.Runtimes) {
		r := l.Runtimes[name]
		table := runtimesTable + "." + name
		fmt.Fprintf(&b, "\n[%s.%s]\n", runtimesTable, quote(name))
		for _, k := range runtimeKeys() {
			l.line(&b, table+"."+k.name, k.name, k.value.toml(&r))
		}
	}
	return b.String()
}

// Diff returns, as TOML for a file of conf.d, what differs from the defaults,
// with a comment at each value that says where it came from; a comment alone if
// nothing does. A file of it makes of the defaults the same configuration.
func (l *Loaded) Diff() string {
	var b strings.Builder
	defaults := Default()
	for _, k := range keys() {
		if value := k.value.toml(&l.Config); value != k.value.toml(&defaults) {
			l.line(&b, k.name, k.name, value)
		}
	}
	var unset Runtime
	for _, name := range runtimeNames(l.Runtimes) {
		r := l.Runtimes[name]
		table := runtimesTable + "." + name
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "[%s.%s] # %s\n", runtimesTable, quote(name), l.origin(table)) // a handler even if it is empty
		for _, k := range runtimeKeys() {
			if value := k.value.toml(&r); value != k.value.toml(&unset) {
				l.line(&b, table+"."+k.name, k.name, value)
			}
		}
	}
	if b.Len() == 0 {
		return "# Nothing differs from the defaults.\n"
	}
	return b.String()
}

func (l *Loaded) line(b *strings.Builder, full path, name, value string) {
	fmt.Fprintf(b, "%s = %s # %s\n", name, value, l.origin(full))
}

// origin says, for a comment, where the value of a key came from.
func (l *Loaded) origin(full path) string {
	return strings.ToValidUTF8(strings.Map(printable, l.origins[full].String()), "?")
}

// printable keeps a file's strange name from ending the comment it stands in.
func printable(r rune) rune {
	if r < 0x20 || r == 0x7f {
		return '?'
	}
	return r
}

// DefaultTOML is the documented default configuration file: every key, its
// meaning, and its default in a comment.
func DefaultTOML() string {
	var b strings.Builder
	comment(&b, "The configuration of gantryd. Every key is shown with its default; remove the "+
		"leading # to change it. Files in conf.d beside this one are merged over it in the order of "+
		"their names, and flags (--run-root for run_root) over those. `gantryd config` prints the outcome. "+
		"A running gantryd reads all that again on SIGHUP (systemctl reload gantry), and pods and "+
		"containers made from then on get what is new; but a key that says \""+restartDoc+"\" changes "+
		"only with the next start.")
	defaults := Default()
	for _, k := range keys() {
		b.WriteByte('\n')
		comment(&b, k.text())
		fmt.Fprintf(&b, "#%s = %s\n", k.name, k.value.toml(&defaults))
	}
	b.WriteByte('\n')
	comment(&b, runtimesDoc)
	fmt.Fprintf(&b, "#[%s.NAME]\n", runtimesTable)
	var runtime Runtime
	for _, k := range runtimeKeys() {
		comment(&b, k.text())
		fmt.Fprintf(&b, "#%s = %s\n", k.name, k.value.toml(&runtime))
	}
	return b.String()
}

// text is the key's whole documentation.
func (k key[C]) text() string {
	if k.change == restart {
		return k.doc + " " + restartDoc
	}
	return k.doc
}

// comment writes text as comment lines of at most 80 columns.
func comment(b *strings.Builder, text string) {
	line := "#"
	for _, word := range strings.Fields(text) {
		if len(line)+1+len(word) > 80 {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}
