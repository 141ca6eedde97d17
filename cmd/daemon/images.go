package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gantry-cri/gantry/internal/config"
	"github.com/gantry-cri/gantry/internal/control"
	"github.com/gantry-cri/gantry/internal/image"
)

// imagesCommand is what an operator does with images, through the running daemon.
func imagesCommand(flags *config.Flags) *cobra.Command {
	// with makes a command's work from what is done with a client.
	with := func(do func(ctx context.Context, c *control.Client, out io.Writer, args []string) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) error {
			return do(cmd.Context(), controlClient(cmd, flags), cmd.OutOrStdout(), args)
		}
	}
	list := func(use string) *cobra.Command {
		return &cobra.Command{Use: use, Short: "List the stored images", Args: cobra.NoArgs, RunE: with(listImages)}
	}
	all := list("images")
	all.Short = "List, pull, inspect, verify and prune images"
	all.Long = "List, pull, inspect, verify and prune the images of the running daemon. Without a subcommand, list them."
	all.AddCommand(
		list("list"),
		&cobra.Command{Use: "pull IMAGE", Short: "Pull an image, and show how far it is",
			Long: `Pull an image, and show how far it is. Credentials are those of auth_file.
Interrupted, the transfer goes on in the daemon; asking again joins it.`,
			Args: cobra.ExactArgs(1), RunE: with(pullImage)},
		&cobra.Command{Use: "inspect IMAGE", Short: "Print what is known of an image, as JSON", Args: cobra.ExactArgs(1), RunE: with(inspectImage)},
		&cobra.Command{Use: "verify [IMAGE]", Short: "Check that the files of an image, or of all, are as they were unpacked",
			Long: `Check that the files of an image, or of all images, are as they were unpacked:
their names, kinds, sizes, owners, modes and times. What is damaged is
replaced by the next pull of the image. Exits with 1 if anything is.`,
			Args: cobra.MaximumNArgs(1), RunE: with(verifyImages)},
		&cobra.Command{Use: "prune", Short: "Remove every image that no container has and that is not pinned", Args: cobra.NoArgs, RunE: with(pruneImages)},
	)
	return all
}

func listImages(ctx context.Context, c *control.Client, out io.Writer, _ []string) error {
	list, err := c.Images(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "IMAGE\tID\tSIZE\tCREATED\tUSE")
	for _, img := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", shownName(img), shortID(img.ID), size(img.Size), age(img.Created), use(img))
	}
	return w.Flush()
}

// shownName is an image's tags, or its name by digest where it has none.
func shownName(img control.Image) string {
	var tags []string
	for _, name := range img.Names {
		if !strings.Contains(name, "@") {
			tags = append(tags, name)
		}
	}
	switch {
	case len(tags) > 0:
		return strings.Join(tags, ",")
	case len(img.Names) > 0:
		return img.Names[0]
	}
	return "<none>"
}

func shortID(id string) string {
	const shown = 12 // of 64 digits, as crictl does
	hexID := strings.TrimPrefix(id, "sha256:")
	return hexID[:min(shown, len(hexID))]
}

func size[T int64 | uint64](bytes T) string { return units.HumanSizeWithPrecision(float64(bytes), 3) }

func age(t time.Time) string {
	if t.IsZero() || t.Unix() <= 0 { // some builders say 1970 for "no time"
		return "-"
	}
	return units.HumanDuration(time.Since(t)) + " ago"
}

func use(img control.Image) string {
	switch {
	case img.InUse && img.Pinned:
		return "in use, pinned"
	case img.InUse:
		return "in use"
	case img.Pinned:
		return "pinned"
	}
	return "-"
}

func inspectImage(ctx context.Context, c *control.Client, out io.Writer, args []string) error {
	found, err := c.Inspect(ctx, args[0])
	if err != nil {
		return err
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(found)
}

func verifyImages(ctx context.Context, c *control.Client, out io.Writer, args []string) error {
	name := strings.Join(args, "")
	damaged := 0
	err := c.Verify(ctx, name, func(v control.Verdict) {
		if len(v.Damaged) == 0 {
			fmt.Fprintf(out, "ok       %s\n", shownName(v.Image))
			return
		}
		damaged++
		fmt.Fprintf(out, "damaged  %s: %d layers; pull it again\n", shownName(v.Image), len(v.Damaged))
	})
	if err == nil && damaged > 0 {
		err = fmt.Errorf("%d images are damaged", damaged)
	}
	return err
}

func pruneImages(ctx context.Context, c *control.Client, out io.Writer, _ []string) error {
	pruned, err := c.Prune(ctx)
	if err != nil {
		return err
	}
	for _, img := range pruned.Removed {
		fmt.Fprintf(out, "removed  %s\n", shownName(img))
	}
	if pruned.Error != "" {
		return errors.New(pruned.Error)
	}
	return nil
}

func pullImage(ctx context.Context, c *control.Client, out io.Writer, args []string) error {
	b := newBar(out)
	err := c.Pull(ctx, args[0], func(u control.PullUpdate) {
		if u.Progress != nil {
			b.show(*u.Progress)
		} else {
			b.clear()
			fmt.Fprintln(out, u.Image.ID)
		}
	})
	if err != nil {
		b.clear()
	}
	return err
}

// bar shows how far a pull is: on a terminal a line that changes, elsewhere a
// line now and then.
type bar struct {
	out      io.Writer
	width    int // of the terminal; 0 where there is none
	previous image.Progress
	at       time.Time // of previous
	rate     float64   // bytes per second
}

// lineEvery is how often a line is written where there is no terminal.
const lineEvery = 5 * time.Second

func newBar(out io.Writer) *bar {
	b := &bar{out: out}
	if f, ok := out.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			b.width = max(width, 40)
		}
	}
	return b
}

func (b *bar) show(p image.Progress) {
	elapsed := time.Since(b.at)
	if b.width == 0 && elapsed < lineEvery {
		return
	}
	if !b.at.IsZero() && p.From == b.previous.From {
		now := float64(p.Received-b.previous.Received) / elapsed.Seconds()
		b.rate += (now - b.rate) / 4 // a little smoother
	}
	b.previous, b.at = p, time.Now()
	text := b.text(p)
	if b.width == 0 {
		fmt.Fprintln(b.out, text)
		return
	}
	const drawn = 20
	done := 0
	if p.Total > 0 {
		done = int(min(p.Received*drawn/p.Total, drawn))
	}
	line := fmt.Sprintf("[%s%s] %s", strings.Repeat("=", done), strings.Repeat(" ", drawn-done), text)
	fmt.Fprintf(b.out, "\r\033[K%s", line[:min(len(line), b.width-1)])
}

func (b *bar) text(p image.Progress) string {
	if p.Total == 0 {
		return "asking " + p.From
	}
	return fmt.Sprintf("%s of %s, %d of %d layers, %s/s from %s", size(p.Received), size(p.Total), p.LayersDone, p.Layers, size(int64(b.rate)), p.From)
}

// clear takes the line away.
func (b *bar) clear() {
	if b.width > 0 {
		fmt.Fprint(b.out, "\r\033[K")
	}
}
