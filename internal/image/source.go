package image

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/types"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/storage"
)

// maxIndexDepth is how many indexes may lead to an image.
const maxIndexDepth = 4

// open connects to the server that c.sys leads to.
func (f *streamFetcher) open(ctx context.Context, c candidate, retry retrier, w *watch) (*watchedSource, error) {
	ref, err := docker.NewReference(c.ref)
	if err != nil {
		return nil, err
	}
	watched := &watchedSource{w: w, retry: retry, limits: f.o.Limits, layers: f.o.Limits.ofLayers()}
	err = retry.do(ctx, c.ref.String(), func() (err error) {
		ctx, done := w.request(ctx)
		defer done()
		watched.ImageSource, err = ref.NewImageSource(ctx, c.sys)
		return err
	})
	if err != nil {
		return nil, senseless(err)
	}
	return watched, nil
}

// found is an image of this platform, not yet looked into.
type found struct {
	unparsed *image.UnparsedImage
	signed   *image.UnparsedImage // the same with its signatures, see signedInstance
	top      digest.Digest        // of what the name stands for
	manifest []byte
	indexes  [][]byte // that led here
}

// selectImage follows indexes to the image of this platform. All manifests but
// the first are verified by the digests that lead to them, and the first too
// if it was asked for by digest.
func selectImage(ctx context.Context, src *watchedSource, sys *types.SystemContext) (found, error) {
	var f found
	var instance *digest.Digest
	for range maxIndexDepth + 1 {
		f.unparsed, f.signed = image.UnparsedInstance(src, instance), src.signedInstance(instance)
		body, mediaType, err := f.unparsed.Manifest(ctx)
		if err != nil {
			return found{}, err
		}
		if instance == nil {
			if f.top, err = manifest.Digest(body); err != nil {
				return found{}, fmt.Errorf("digest of manifest: %w", err)
			}
		}
		if !manifest.MIMETypeIsMultiImage(mediaType) {
			f.manifest = body
			return f, nil
		}
		list, err := manifest.ListFromBlob(body, mediaType)
		if err != nil {
			return found{}, errkind.Errorf(errkind.Invalid, "index: %w", err)
		}
		chosen, err := list.ChooseInstance(sys)
		if err != nil {
			return found{}, errkind.Errorf(errkind.NotFound, "index: %w", err)
		}
		f.indexes = append(f.indexes, body)
		instance = &chosen
	}
	return found{}, errkind.Errorf(errkind.Invalid, "more than %d indexes, one inside the other", maxIndexDepth)
}

// describe reads the configuration and says which layers the image is made
// of. The policy has allowed it.
func (f found) describe(ctx context.Context, sys *types.SystemContext) ([]layerJob, storage.ImageRecord, error) {
	if m, ok := f.artifact(); ok {
		return f.describeArtifact(m)
	}
	rec := storage.ImageRecord{Manifest: f.manifest, Indexes: f.indexes}
	img, err := image.FromUnparsedImage(ctx, sys, f.unparsed)
	if err != nil {
		return nil, rec, errkind.Wrap(errkind.Invalid, err)
	}
	if err := img.ConfigInfo().Digest.Validate(); err != nil || img.ConfigInfo().Digest.Algorithm() != digest.SHA256 {
		return nil, rec, errkind.Errorf(errkind.Invalid, "manifest without a SHA-256 configuration: too old, or no image")
	}
	rec.ID = img.ConfigInfo().Digest.Encoded()
	if rec.Config, err = img.ConfigBlob(ctx); err != nil {
		return nil, rec, fmt.Errorf("configuration: %w", err)
	}
	config, err := img.OCIConfig(ctx)
	if err != nil {
		return nil, rec, errkind.Errorf(errkind.Invalid, "configuration: %w", err)
	}
	if config.Created != nil {
		rec.Created = *config.Created
	}
	jobs, err := layerJobs(img.LayerInfos(), config)
	if len(jobs) > 0 {
		rec.TopLayer = jobs[len(jobs)-1].id
	}
	return jobs, rec, err
}

// layerJobs pairs the manifest's blobs with the configuration's digests.
func layerJobs(infos []types.BlobInfo, config *imgspec.Image) ([]layerJob, error) {
	diffIDs := config.RootFS.DiffIDs
	if len(infos) != len(diffIDs) {
		return nil, errkind.Errorf(errkind.Invalid, "manifest has %d layers, configuration %d", len(infos), len(diffIDs))
	}
	for i, info := range infos {
		if err := checkLayer(info, diffIDs[i]); err != nil {
			return nil, fmt.Errorf("layer %q: %w", info.Digest, err)
		}
	}
	jobs := make([]layerJob, 0, len(infos))
	parent := ""
	for i, id := range storage.ChainIDs(diffIDs) {
		jobs = append(jobs, layerJob{id: id, parent: parent, diffID: diffIDs[i], blob: infos[i]})
		parent = id
	}
	return jobs, nil
}

// foreign tells layers that their registry does not have, but another server:
// nobody says that it is trusted, or there.
func foreign(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.docker.image.rootfs.foreign.") ||
		strings.HasPrefix(mediaType, "application/vnd.oci.image.layer.nondistributable.")
}

func checkLayer(info types.BlobInfo, diffID digest.Digest) error {
	if err := errors.Join(info.Digest.Validate(), diffID.Validate()); err != nil {
		return errkind.Wrap(errkind.Invalid, err)
	}
	if info.Size < 0 {
		return errkind.Errorf(errkind.Invalid, "manifest gives it %d bytes", info.Size)
	}
	if diffID.Algorithm() != digest.SHA256 {
		return errkind.Errorf(errkind.Invalid, "configuration names it by %s, not SHA-256", diffID.Algorithm())
	}
	if len(info.URLs) > 0 || foreign(info.MediaType) {
		return errkind.Errorf(errkind.Invalid, "foreign layers (%s) are refused", info.MediaType)
	}
	return nil
}
