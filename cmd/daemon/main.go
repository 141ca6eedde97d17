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
again at any time: running containers do not notice.`,
		Version:       version,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate(versionLine())
	flags := config.BindFlags(root.PersistentFlags())
	root.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := config.Load(flags)
		if err != nil {
			return err
		}
		return serve(cmd.Context(), cfg)
	}
	root.AddCommand(configCommand(flags), imagesCommand(flags), statusCommand(flags), checkCommand(flags), wipeCommand(flags), versionCommand())
	root.AddCommand(extraCommands()...)
	return root
}

func configCommand(flags *config.Flags) *cobra.Command {
	var defaults bool
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the effective configuration, and where each value comes from",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if defaults {
				fmt.Fprint(cmd.OutOrStdout(), config.DefaultTOML())
				return nil
			}
			cfg, err := config.Load(flags)
			if err != nil {
				return err
			}
			fmt.Fprint(cmd.OutOrStdout(), cfg.Effective())
			return nil
		},
	}
	cmd.Flags().BoolVar(&defaults, "default", false, "print the documented default file instead")
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
