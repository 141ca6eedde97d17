package image

import (
	"encoding/json"
	"fmt"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/types"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/storage"
)

// An OCI artifact is a manifest whose configuration is no image's, with any
// blobs: https://github.com/opencontainers/image-spec/blob/main/manifest.md
// It is stored as an image of one layer that has the blobs as files, so that
// it can be mounted, listed and removed as any other.

// What the configuration that an artifact gets here says of it.
const (
	artifactTypeLabel     = "gantry.artifact.type"
	artifactManifestLabel = "gantry.artifact.manifest"
)

// unpackAnnotation says of a blob that it is the archive of a directory:
// https://oras.land/docs/how_to_guides/pushing_and_pulling
const unpackAnnotation = "io.deis.oras.content.unpack"

// whiteoutPrefix means in a layer that a file below it is hidden.
const whiteoutPrefix = ".wh."

// artifactFile is a blob of an artifact.
type artifactFile struct {
	name   string // where it goes; "" for an archive
	blob   types.BlobInfo
	unpack bool // it is an archive, perhaps compressed
}

// ArtifactType is the type of a stored artifact; false for an image.
func ArtifactType(img storage.Image) (string, bool) {
	if img.Config == nil {
		return "", false
	}
	kind, ok := img.Config.Config.Labels[artifactTypeLabel]
	return kind, ok
}

// artifact is the manifest of an artifact; false for an image.
func (f found) artifact() (m imgspec.Manifest, ok bool) {
	if json.Unmarshal(f.manifest, &m) != nil || m.SchemaVersion != 2 {
		return m, false
	}
	switch m.Config.MediaType {
	case "", imgspec.MediaTypeImageConfig, manifest.DockerV2Schema2ConfigMediaType:
		return m, false
	}
	return m, m.MediaType == "" || m.MediaType == imgspec.MediaTypeImageManifest
}

// describeArtifact is describe for an artifact.
func (f found) describeArtifact(m imgspec.Manifest) ([]layerJob, storage.ImageRecord, error) {
	rec := storage.ImageRecord{Manifest: f.manifest, Indexes: f.indexes}
	d, err := manifest.Digest(f.manifest)
	if err != nil {
		return nil, rec, fmt.Errorf("digest of manifest: %w", err)
	}
	files, err := artifactFiles(m)
	if err != nil {
		return nil, rec, err
	}
	kind := m.ArtifactType
	if kind == "" {
		kind = m.Config.MediaType
	}
	config := imgspec.Image{Platform: imgspec.Platform{OS: "linux", Architecture: runtime.GOARCH}}
	config.RootFS.Type = "layers"
	config.Config.Labels = map[string]string{artifactTypeLabel: kind, artifactManifestLabel: d.String()}
	if rec.Config, err = json.Marshal(config); err != nil {
		return nil, rec, fmt.Errorf("configuration: %w", err)
	}
	rec.ID = digest.FromBytes(rec.Config).Encoded()
	if len(files) == 0 {
		return nil, rec, nil
	}
	rec.TopLayer = digest.FromString("layer of the artifact " + d.String()).Encoded()
	job := layerJob{id: rec.TopLayer, blob: types.BlobInfo{Digest: d}, files: files}
	for _, file := range files {
		job.blob.Size += file.blob.Size
	}
	return []layerJob{job}, rec, nil
}

// artifactFiles says what becomes of each blob.
func artifactFiles(m imgspec.Manifest) ([]artifactFile, error) {
	var files []artifactFile
	taken := map[string]bool{} // name -> it is a file
	for _, l := range m.Layers {
		file, err := newArtifactFile(l)
		if err != nil {
			return nil, fmt.Errorf("blob %q: %w", l.Digest, err)
		}
		if file.name == "" && !file.unpack {
			continue
		}
		if _, ok := taken[file.name]; ok && !file.unpack {
			return nil, errkind.Errorf(errkind.Invalid, "blob %s: there are two files %q", l.Digest, file.name)
		}
		for dir := path.Dir(file.name); dir != "." && !file.unpack; dir = path.Dir(dir) {
			if taken[dir] {
				return nil, errkind.Errorf(errkind.Invalid, "blob %s: %q is a file and a directory", l.Digest, dir)
			}
			taken[dir] = false
		}
		taken[file.name] = true
		files = append(files, file)
	}
	return files, nil
}

// newArtifactFile goes by the blob's title. The zero file is one to leave out.
func newArtifactFile(l imgspec.Descriptor) (artifactFile, error) {
	file := artifactFile{blob: types.BlobInfo{Digest: l.Digest, Size: l.Size, MediaType: l.MediaType}}
	if err := l.Digest.Validate(); err != nil || l.Size < 0 {
		return file, errkind.Errorf(errkind.Invalid, "bad digest, or size %d", l.Size)
	}
	if len(l.URLs) > 0 || foreign(l.MediaType) || encrypted(l.MediaType) {
		return file, errkind.Errorf(errkind.Invalid, "blobs of artifacts that are foreign or encrypted (%s) are refused", l.MediaType)
	}
	title := l.Annotations[imgspec.AnnotationTitle]
	switch {
	case l.Annotations[unpackAnnotation] == "true", title == "" && isLayer(l.MediaType):
		file.unpack = true
		return file, nil
	case title == "" && l.MediaType == imgspec.MediaTypeEmptyJSON:
		return artifactFile{}, nil
	case title == "":
		title = strings.ReplaceAll(l.Digest.String(), ":", "-")
	}
	file.name = path.Clean(title)
	return file, checkName(file.name)
}

func isLayer(mediaType string) bool {
	switch mediaType {
	case imgspec.MediaTypeImageLayer, imgspec.MediaTypeImageLayerGzip, imgspec.MediaTypeImageLayerZstd:
		return true
	}
	return false
}

// checkName refuses what leads out of the artifact, and names that mean
// something else in a layer.
func checkName(name string) error {
	if name == "." || !filepath.IsLocal(name) || strings.ContainsRune(name, 0) {
		return errkind.Errorf(errkind.Invalid, "%q is no name of a file in the artifact", name)
	}
	for _, part := range strings.Split(name, "/") {
		if strings.HasPrefix(part, whiteoutPrefix) {
			return errkind.Errorf(errkind.Invalid, "a file can't be called %q", name)
		}
	}
	return nil
}
