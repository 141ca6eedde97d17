package image

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	"go.podman.io/storage/pkg/archive"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/storage"
)

// artifactLayer downloads an artifact's blobs into one layer, one after the
// other and without a copy: they pass through an archive of them all, so that
// its unpacker's limits and precautions are for them as well.
func (f *streamFetcher) artifactLayer(ctx context.Context, src *watchedSource, job layerJob) (storage.NewLayer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reader, writer := io.Pipe()
	written := make(chan error, 1)
	go func() {
		w := artifactWriter{ctx: ctx, src: src, unpack: f.unpack, tar: tar.NewWriter(writer), dirs: map[string]bool{}}
		err := w.writeAll(job.files)
		written <- err
		_ = writer.CloseWithError(err) // never fails
	}()
	out := &counted{r: reader, hash: digest.SHA256.Hash()}
	staged, err := f.store.Stage(ctx, out, src.layers)
	select {
	case writeErr := <-written: // it says more than that the archive broke off
		err = cmp.Or(writeErr, err)
	default: // the archive was given up
		cancel()
		_ = reader.CloseWithError(io.ErrClosedPipe) // never fails
		<-written
	}
	if err != nil {
		if staged != nil {
			staged.Discard()
		}
		return storage.NewLayer{}, err
	}
	return storage.NewLayer{
		ID: job.id, DiffID: digest.NewDigest(digest.SHA256, out.hash), Size: out.n,
		Blob: job.blob.Digest, BlobSize: job.blob.Size, Compression: archive.Uncompressed, Staged: staged,
	}, nil
}

// artifactWriter writes blobs to an archive.
type artifactWriter struct {
	ctx    context.Context
	src    *watchedSource
	unpack decompressor
	tar    *tar.Writer
	dirs   map[string]bool // that were written
}

func (w artifactWriter) writeAll(files []artifactFile) error {
	if err := w.tar.WriteHeader(&tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
		return err
	}
	for _, file := range files {
		if err := w.write(file); err != nil {
			return fmt.Errorf("blob %s: %w", file.blob.Digest, err)
		}
	}
	return w.tar.Close()
}

func (w artifactWriter) write(file artifactFile) error {
	body, err := newBlob(w.ctx, w.src, file.blob, w.src.retry)
	if err != nil {
		return err
	}
	defer body.Close()
	if file.unpack {
		err = w.copyArchive(body)
	} else if err = w.parents(file.name); err == nil {
		err = w.tar.WriteHeader(&tar.Header{Name: file.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: file.blob.Size})
	}
	if err != nil {
		return err
	}
	if file.unpack {
		_, err = io.Copy(io.Discard, body) // to its end, where it is verified
		return err
	}
	_, err = io.Copy(w.tar, body)
	return err
}

// parents writes the directories that lead to name.
func (w artifactWriter) parents(name string) error {
	dir := path.Dir(name)
	if dir == "." || w.dirs[dir] {
		return nil
	}
	if err := w.parents(dir); err != nil {
		return err
	}
	w.dirs[dir] = true
	return w.tar.WriteHeader(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755})
}

// copyArchive copies the files, directories and links of an archive. Nothing
// that only a running program could want comes along.
func (w artifactWriter) copyArchive(body io.Reader) (err error) {
	plain, _, err := w.unpack.open(w.ctx, body)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plain.Close()) }()
	for archive := tar.NewReader(plain); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errkind.Wrap(archiveKind(err), fmt.Errorf("archive: %w", err))
		}
		if err := checkEntry(h); err != nil {
			return err
		}
		clean := &tar.Header{Typeflag: h.Typeflag, Name: h.Name, Linkname: h.Linkname, Size: h.Size, Mode: h.Mode & 0o777, ModTime: h.ModTime}
		if err := w.tar.WriteHeader(clean); err != nil {
			return err
		}
		if _, err := io.Copy(w.tar, archive); err != nil {
			return err
		}
	}
}

// archiveKind tells a broken archive from a broken transfer.
func archiveKind(err error) errkind.Kind {
	if kind := errkind.Of(classify(err)); kind != errkind.Other {
		return kind
	}
	return errkind.Invalid
}

func checkEntry(h *tar.Header) error {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink:
	default:
		return errkind.Errorf(errkind.Invalid, "%q is neither file, directory nor link", h.Name)
	}
	for _, part := range strings.Split(h.Name, "/") {
		if strings.HasPrefix(part, whiteoutPrefix) {
			return errkind.Errorf(errkind.Invalid, "a file can't be called %q", h.Name)
		}
	}
	return nil
}
