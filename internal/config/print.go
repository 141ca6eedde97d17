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

func (l *Loaded) line(b *strings.Builder, full path, name, value string) {
	fmt.Fprintf(b, "%s = %s # %s\n", name, value, strings.ToValidUTF8(strings.Map(printable, l.origins[full].String()), "?"))
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
		"their names, and flags (--run-root for run_root) over those. `gantryd config` prints the outcome.")
	defaults := Default()
	for _, k := range keys() {
		b.WriteByte('\n')
		comment(&b, k.doc)
		fmt.Fprintf(&b, "#%s = %s\n", k.name, k.value.toml(&defaults))
	}
	b.WriteByte('\n')
	comment(&b, runtimesDoc)
	fmt.Fprintf(&b, "#[%s.NAME]\n", runtimesTable)
	var runtime Runtime
	for _, k := range runtimeKeys() {
		comment(&b, k.doc)
		fmt.Fprintf(&b, "#%s = %s\n", k.name, k.value.toml(&runtime))
	}
	return b.String()
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
