package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/gantry-cri/gantry/internal/config"
	"github.com/gantry-cri/gantry/internal/control"
	"github.com/gantry-cri/gantry/internal/metrics"
)

// statusOf returns what tells how the daemon is.
func (d *daemon) statusOf(m *metrics.Metrics, cfg config.Config) func() control.Status {
	started := time.Now()
	return func() control.Status {
		seen := d.snapshot()
		s := control.Status{
			Version: version, Commit: commit, PID: os.Getpid(), Started: started, Listen: cfg.Listen, Streams: d.streams.Addr(),
			Pods: seen.Pods, Containers: seen.Containers, Images: seen.Images, ImageBytes: seen.ImageBytes, Pulls: d.images.Pulls(),
			Config: d.config.Load().status(), Problems: d.problems(), Damaged: seen.Damaged, Goroutines: runtime.NumGoroutine(),
		}
		for _, c := range m.InFlight() {
			s.Calls = append(s.Calls, control.Call(c))
		}
		var pages, resident uint64
		if text, err := os.ReadFile("/proc/self/statm"); err == nil {
			fmt.Sscan(string(text), &pages, &resident) //nolint:errcheck // then it stays zero
			s.RSS = resident * uint64(os.Getpagesize())
		}
		if files, err := os.ReadDir("/proc/self/fd"); err == nil {
			s.Files = len(files) - 1 // one is for this look
		}
		return s
	}
}

func statusCommand(flags *config.Flags) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell how the running daemon is",
		Long: `Tell how the running daemon is: when it read its configuration, and which keys
have newer values that need a restart; pods, containers and images, calls and
pulls under way, what is wrong, and what the process uses. A reload that failed
is among what is wrong, until one succeeds. It waits for nothing. Exits with 1
if no daemon answers.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "text" && format != "json" {
				return fmt.Errorf("--output: want text or json, have %q", format)
			}
			s, err := controlClient(cmd, flags).Status(cmd.Context())
			if err != nil {
				return err
			}
			if format == "json" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(s)
			}
			printStatus(cmd.OutOrStdout(), s, time.Now())
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "text", "`format`: text or json")
	return cmd
}

func printStatus(out io.Writer, s control.Status, now time.Time) {
	line := func(what, format string, args ...any) {
		fmt.Fprintf(out, "%-12s"+format+"\n", append([]any{what}, args...)...)
	}
	line("gantryd", "%s (%s), process %d, up %s", s.Version, s.Commit, s.PID, strings.ToLower(units.HumanDuration(now.Sub(s.Started))))
	line("listens", "%s; exec, attach and port-forward on %s", s.Listen, s.Streams)
	line("config", "read %s ago%s", strings.ToLower(units.HumanDuration(now.Sub(s.Config.Read))), needRestart(s.Config.NeedRestart))
	line("pods", "%s", counts(s.Pods))
	line("containers", "%s", counts(s.Containers))
	line("images", "%d, %s", s.Images, size(s.ImageBytes))
	line("uses", "%s of memory, %d files, %d goroutines", units.BytesSize(float64(s.RSS)), s.Files, s.Goroutines)
	for _, p := range s.Pulls {
		line("pull", "%s", p.Image)
	}
	for _, c := range s.Calls {
		line("call", "%s, for %s", c.RPC, now.Sub(c.Since).Round(time.Millisecond))
	}
	if len(s.Problems) == 0 {
		line("problems", "none")
	}
	for _, p := range s.Problems {
		line("problem", "%s", p)
	}
}

func needRestart(keys []string) string {
	if len(keys) == 0 {
		return ""
	}
	return "; a restart is needed for " + strings.Join(keys, ", ")
}

// counts shows how many there are in each state that any is in.
func counts(states map[string]int) string {
	var parts []string
	for state, n := range states {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
