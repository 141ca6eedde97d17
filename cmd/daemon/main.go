// Command gantryd is the Gantry daemon: the container runtime of a Kubernetes
// node. Without a subcommand it serves the CRI until it is told to stop.
package main

import (
	"fmt"
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/gantry-cri/gantry/internal/config"
	"github.com/gantry-cri/gantry/internal/storage"
)

// version and commit are set by the linker (see the Makefile).
var (
	version = "0.0.0-dev"
	commit  = "unknown"
)

func main() {
	if storage.Reexec() { // this process is a helper of containers/storage
		return
	}
	if err := command().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "gantryd:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "gantryd",
		Short: "A Kubernetes container runtime (CRI)",
		Long: `gantryd serves the Kubernetes Container Runtime Interface on a unix socket.

Point the kubelet at it with --container-runtime-endpoint=unix://<listen>, and
crictl with --runtime-endpoint=unix://<listen>. It can be killed and started
again at any time: running containers do not notice. On SIGHUP it reads its
configuration again; gantryd status tells what became of that.`,
		Version:       version,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate(versionLine())
	flags := config.BindFlags(root.PersistentFlags())
	root.RunE = func(cmd *cobra.Command, _ []string) error {
		return serve(cmd.Context(), flags)
	}
	root.AddCommand(configCommand(flags), imagesCommand(flags), statusCommand(flags), checkCommand(flags), wipeCommand(flags), versionCommand())
	root.AddCommand(extraCommands()...)
	return root
}

func configCommand(flags *config.Flags) *cobra.Command {
	var defaults, diff bool
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the effective configuration, and where each value comes from",
		Long: `Print the effective configuration as TOML: that of the defaults, the files and the
flags. A comment at each value says where it comes from: a file and its line, or
a flag. A running daemon may have read older files: gantryd status tells.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if defaults {
				fmt.Fprint(cmd.OutOrStdout(), config.DefaultTOML())
				return nil
			}
			cfg, err := config.Load(flags)
			if err != nil {
				return err
			}
			text := cfg.Effective()
			if diff {
				text = cfg.Diff()
			}
			fmt.Fprint(cmd.OutOrStdout(), text)
			return nil
		},
	}
	cmd.Flags().BoolVar(&defaults, "default", false, "print the documented default file instead")
	cmd.Flags().BoolVar(&diff, "diff", false, "print only what differs from the defaults, as a file of conf.d would have it")
	cmd.MarkFlagsMutuallyExclusive("default", "diff")
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprint(cmd.OutOrStdout(), versionLine())
		},
	}
}

func versionLine() string {
	return fmt.Sprintf("gantryd %s (commit %s, %s, CRI v1)\n", version, commit, runtime.Version())
}
