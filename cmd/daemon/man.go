//go:build man

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"

	"github.com/gantry-cri/gantry/internal/config"
)

// With the build tag man, which packaging sets, the program can write its
// manual pages. The program that is installed has neither the command nor the
// library for it.
func extraCommands() []*cobra.Command {
	return []*cobra.Command{{
		Use:    "man DIRECTORY",
		Short:  "Write the manual pages",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE:   func(cmd *cobra.Command, args []string) error { return writeMan(cmd.Root(), args[0]) },
	}}
}

// writeMan writes gantryd(8), a page for each of its commands, and
// gantry.toml(5) to dir. They are dated by SOURCE_DATE_EPOCH, if it is set.
func writeMan(root *cobra.Command, dir string) error {
	date := time.Now()
	if epoch, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
		date = time.Unix(epoch, 0)
	}
	date = date.UTC()
	root.DisableAutoGenTag = true
	for _, c := range root.Commands() {
		if c.Name() == "completion" { // installed ready-made, no page needed
			root.RemoveCommand(c)
		}
	}
	asMarkdown(root)
	header := &doc.GenManHeader{Section: "8", Date: &date, Manual: "Gantry", Source: "gantry " + version}
	if err := doc.GenManTree(root, header, dir); err != nil {
		return fmt.Errorf("manual pages: %w", err)
	}
	page := md2man.Render(configPage(date.Format("Jan 2006")))
	return os.WriteFile(filepath.Join(dir, "gantry.toml.5"), page, 0o644)
}

// asMarkdown makes the help texts, which are plain, what the generator takes
// them for.
func asMarkdown(cmd *cobra.Command) {
	escape := strings.NewReplacer("*", `\*`, "_", `\_`, "<", `\<`).Replace
	cmd.Short, cmd.Long = escape(cmd.Short), escape(cmd.Long)
	cmd.NonInheritedFlags().VisitAll(func(f *pflag.Flag) { f.Usage = escape(f.Usage) })
	for _, c := range cmd.Commands() {
		asMarkdown(c)
	}
}

// configPage is the page of the configuration file, in Markdown: the default
// file explains each key.
func configPage(date string) []byte {
	var page bytes.Buffer
	fmt.Fprintf(&page, "%% \"GANTRY.TOML\" \"5\" %q %q \"Gantry\"\n", date, "gantry "+version)
	page.WriteString(`# NAME

gantry.toml - configuration of gantryd

# SYNOPSIS

/etc/gantry/gantry.toml, /etc/gantry/conf.d/\*.toml

# DESCRIPTION

This is the file with every key and its default.

`)
	for line := range strings.Lines(config.DefaultTOML()) {
		page.WriteString("    " + line)
	}
	page.WriteString(`
# SEE ALSO

**gantryd(8)**, **gantryd-config(8)**, **containers-registries.conf(5)**, **containers-policy.json(5)**
`)
	return page.Bytes()
}
