package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/gantry-cri/gantry/internal/check"
	"github.com/gantry-cri/gantry/internal/config"
)

func checkCommand(flags *config.Flags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look whether the node has what gantryd needs, and what to do",
		Long: `Look whether the node has what gantryd needs, and say what to do where it has
not: kernel, overlayfs, control groups, OCI runtimes, CNI, disks, and how they fit
the configuration and the kubelet. It changes nothing, takes two seconds at most,
and works beside a running daemon. Exits with 1 if anything is an error; warnings
are for what only some nodes need.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, problem := checkedConfig(flags)
			results := check.Real(cfg, problem).Check(cmd.Context())
			if err := printChecks(cmd.OutOrStdout(), results, asJSON); err != nil {
				return err
			}
			if n := count(results, check.Error); n > 0 {
				return fmt.Errorf("the node is not ready for pods: %d errors", n)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a list of {name, level, message, fix}")
	return cmd
}

// checkedConfig is the configuration with its runtimes, or the defaults and what
// is wrong with it.
func checkedConfig(flags *config.Flags) (config.Config, error) {
	loaded, problem := config.Load(flags)
	if problem == nil {
		cfg, err := loaded.ResolveRuntimes(exec.LookPath)
		if err == nil {
			return cfg, nil
		}
		problem = err
	}
	cfg, err := config.Default().ResolveRuntimes(exec.LookPath)
	if err != nil {
		return config.Default(), problem
	}
	return cfg, problem
}

func printChecks(out io.Writer, results []check.Result, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(results)
	}
	for _, r := range results {
		fmt.Fprintf(out, "%-8s %-19s %s\n", r.Level, r.Name, r.Message)
		if r.Level != check.OK && r.Fix != "" {
			fmt.Fprintf(out, "%-8s %-19s   to do: %s\n", "", "", r.Fix)
		}
	}
	fmt.Fprintf(out, "%d errors, %d warnings\n", count(results, check.Error), count(results, check.Warning))
	return nil
}

func count(results []check.Result, level check.Level) int {
	n := 0
	for _, r := range results {
		if r.Level == level {
			n++
		}
	}
	return n
}
