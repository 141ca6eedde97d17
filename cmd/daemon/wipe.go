package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/gantry-cri/gantry/internal/config"
	"github.com/gantry-cri/gantry/internal/network"
	"github.com/gantry-cri/gantry/internal/sandbox"
	"github.com/gantry-cri/gantry/internal/storage"
	"github.com/gantry-cri/gantry/internal/wipe"
)

func wipeCommand(flags *config.Flags) *cobra.Command {
	var images, yes bool
	cmd := &cobra.Command{
		Use:   "wipe",
		Short: "End all pods and remove what gantryd keeps of them",
		Long: `End all pods and containers of this configuration, give back their networks, and
remove what gantryd keeps in run_root and root. Images stay, unless --images is
given. gantryd must not run, and the kubelet should not. It shows what there is
and asks.

What can't be ended or removed, because a CNI plugin fails, say, is told at the
end, with exit code 1; wipe it again then. What is not Gantry's stays.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(flags)
			if err != nil {
				return err
			}
			if os.Geteuid() != 0 {
				return errors.New("gantryd wipe must run as root")
			}
			unix.Umask(0o022)
			w := wiping{loaded: cfg, images: images, out: cmd.OutOrStdout()}
			if !yes {
				w.ask = os.Stdin
			}
			return w.run(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&images, "images", false, "remove the images, too")
	cmd.Flags().BoolVar(&yes, "yes", false, "don't ask; needed where there is no terminal")
	return cmd
}

// wiping is one run of gantryd wipe.
type wiping struct {
	loaded *config.Loaded
	images bool
	ask    *os.File // the terminal to ask on; nil asks nothing
	out    io.Writer
}

func (w *wiping) run(ctx context.Context) error {
	cfg, err := w.loaded.ResolveRuntimes(exec.LookPath)
	if err != nil {
		return err
	}
	scope := wipe.Scope{Root: cfg.Root, RunRoot: cfg.RunRoot, Listen: cfg.Listen, Images: w.images}
	for _, r := range cfg.Runtimes {
		scope.RuntimeRoots = append(scope.RuntimeRoots, r.Root)
	}
	if err := scope.Check(); err != nil {
		return err
	}
	monitors, err := wipe.Monitors(binDir(cfg))
	if err != nil {
		return err
	}
	if len(scope.Places()) == 0 && len(monitors) == 0 {
		fmt.Fprintf(w.out, "There is nothing to wipe in %s and %s.\n", cfg.RunRoot, cfg.Root)
		return nil
	}
	lock, err := lockInstance(cfg.RunRoot, cfg.Root)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%w; stop it first: systemctl stop gantry", err)
	}
	if err != nil {
		return err
	}
	defer lock.release()
	w.show(scope, len(monitors))
	if err := w.confirm(); err != nil {
		return err
	}
	return w.wipe(ctx, cfg, scope)
}

// show tells what will be ended and removed.
func (w *wiping) show(scope wipe.Scope, monitors int) {
	pods, containers := sandbox.PodCount(scope.RunRoot)
	fmt.Fprintln(w.out, "This ends and removes:")
	line := func(what, where string) { fmt.Fprintf(w.out, "  %-32s %s\n", what, where) }
	line(fmt.Sprintf("%d pods, %d containers", pods, containers), filepath.Join(scope.RunRoot, "pods"))
	if monitors > pods {
		line(fmt.Sprintf("%d monitors without a pod", monitors-pods), filepath.Join(scope.Root, "bin"))
	}
	line(fmt.Sprintf("%d network attachments", network.RecordCount(filepath.Join(scope.Root, "network"))), filepath.Join(scope.Root, "network"))
	images := fmt.Sprintf("%d images", storage.ImageCount(scope.Root))
	if w.images {
		line(images, filepath.Join(scope.Root, "storage"))
	}
	for i, place := range scope.Places() {
		if i == 0 {
			line("files and directories", place)
		} else {
			line("", place)
		}
	}
	if !w.images {
		fmt.Fprintf(w.out, "It leaves %s in %s; --images removes them, too.\n", images, scope.Root)
	}
}

// confirm asks whether to go on. Without a terminal to ask on it refuses.
func (w *wiping) confirm() error {
	if w.ask == nil {
		return nil
	}
	if !term.IsTerminal(int(w.ask.Fd())) {
		return errors.New("nothing was done: there is no terminal to ask on, and --yes is not given")
	}
	fmt.Fprint(w.out, "Go on? [y/N] ")
	answer, err := bufio.NewReader(w.ask).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}

// wipe does it, and tells what is left.
func (w *wiping) wipe(ctx context.Context, cfg config.Config, scope wipe.Scope) error {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer stop()
	d, left, err := assembleToEnd(ctx, cfg, w.loaded.LogLevel)
	if err != nil {
		return err
	}
	done := wipe.Outcome{Images: len(left) == 0}
	if w.images {
		left = nil // what can't be opened goes, too
	}
	offline := d.network.ReleaseDamaged(ctx, d.pods.NetNS)
	pods := append(d.pods.RemoveAll(ctx, wipePod), endStrays(ctx, d, cfg)...)
	offline = append(offline, d.network.Release(ctx)...)
	done.Pods, done.Networks = len(pods) == 0, len(offline) == 0
	left = slices.Concat(left, pods, offline)
	scope.RuntimeRoots = append(scope.RuntimeRoots, d.pods.RuntimeRoots()...)
	d.pods.EndRuntimes()
	wipe.EndChildren()
	if err := d.closeOpen(); err != nil {
		left = append(left, err)
	}
	if ctx.Err() != nil {
		return errors.New("interrupted; gantryd wipe goes on where this has ended")
	}
	notes, failed := scope.Remove(done)
	left = append(left, failed...)
	for _, note := range notes {
		fmt.Fprintln(w.out, note)
	}
	if len(left) == 0 {
		fmt.Fprintln(w.out, "Done.")
		return nil
	}
	for _, err := range left {
		fmt.Fprintf(w.out, "left: %v\n", err)
	}
	return fmt.Errorf("%d things are left (above); wipe again when what keeps them is mended", len(left))
}

// endStrays ends monitors of which there is no record any more, with their
// containers.
func endStrays(ctx context.Context, d *daemon, cfg config.Config) []error {
	ctx, cancel := context.WithTimeout(ctx, wipeStrays)
	defer cancel()
	var errs []error
	for _, err := range []error{wipe.EndMonitors(ctx, binDir(cfg)), d.pods.RemoveCgroups(ctx)} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}
