package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A fact is one line of the header.
type fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// gatherFacts describes the machine and the parts.
func (b *bench) gatherFacts(ctx context.Context) []fact {
	cgroups := "version 1"
	if b.node.CgroupV2 {
		cgroups = "version 2"
	}
	facts := []fact{
		{"time", time.Now().UTC().Format(time.RFC3339)},
		{"machine", fmt.Sprintf("%s, %d CPUs, %s", cpuModel(), runtime.NumCPU(), totalMemory())},
		{"kernel", fmt.Sprintf("%s, cgroups %s, load %s", b.node.Kernel, cgroups, firstWord("/proc/loadavg"))},
		{"files", fmt.Sprintf("roots on %s, run roots on %s", filesystem(b.dir), filesystem(runDir(b.dir)))},
		{"runtime", b.plan.runtime + ": " + said(ctx, b.plan.runtime, "--version")},
		{"CNI", b.plugins + ": " + said(ctx, filepath.Join(b.plugins, "bridge"), "--version") + ", bridge + host-local + portmap, no host ports"},
	}
	for _, s := range b.servers {
		version := "--version"
		if s.name == gantry {
			version = "version"
		}
		facts = append(facts, fact{string(s.name), s.argv[0] + ": " + said(ctx, s.argv[0], version)})
	}
	p := b.plan
	return append(facts, fact{"plan", fmt.Sprintf("%d pods one at a time, %d commands, %d × %d pods %d at a time, N = %d (then %d one at a time)",
		p.rounds, p.execs, p.bursts, p.burst, p.workers, p.pods, p.extra)})
}

func (b *bench) header() string {
	var text strings.Builder
	for _, f := range b.facts {
		fmt.Fprintf(&text, "%-11s %s\n", f.Name, f.Value)
	}
	if load, err := strconv.ParseFloat(firstWord("/proc/loadavg"), 64); err == nil && load > 0.5 {
		fmt.Fprintf(&text, "warning     others use this machine (load %.2f): durations and rates suffer, memory and CPU time hardly\n", load)
	}
	return text.String() + "\n"
}

// said is the first line that a program prints.
func said(ctx context.Context, program string, args ...string) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if err != nil && line == "" {
		return err.Error()
	}
	return line
}

func cpuModel() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func totalMemory() string {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%.0f GiB", float64(info.Totalram)*float64(info.Unit)/(1<<30))
}

func firstWord(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	word, _, _ := strings.Cut(string(data), " ")
	return word
}

// filesystem names the type of the file system that holds the directory.
func filesystem(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err.Error()
	}
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs"
	}
	return fmt.Sprintf("file system %#x", st.Type)
}
