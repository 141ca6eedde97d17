package image

import (
	"encoding/json"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/manifest"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/storage"
)

// TestFormats: how a layer is compressed is in its first bytes, whatever the
// manifest calls it; Docker's manifests mean the same as OCI's.
func TestFormats(t *testing.T) {
	raw := archiveOf(t, member{name: "file", body: "content"})
	zstd := zstdOf(t, func(w io.Writer) {
		_, err := w.Write(raw)
		must(t, err)
	})
	docker := func(m *imgspec.Manifest) {
		m.MediaType, m.Config.MediaType = manifest.DockerV2Schema2MediaType, manifest.DockerV2Schema2ConfigMediaType
		m.Layers[0].MediaType = manifest.DockerV2Schema2LayerMediaType
	}
	for name, c := range map[string]struct {
		blob   []byte
		change func(*imgspec.Manifest)
	}{
		"gzip":                   {gzipped(t, raw), func(*imgspec.Manifest) {}},
		"zstd":                   {zstd, func(m *imgspec.Manifest) { m.Layers[0].MediaType = imgspec.MediaTypeImageLayerZstd }},
		"zstd called gzip":       {zstd, func(*imgspec.Manifest) {}},
		"zstd in several frames": {append(append(skippable(1), zstd...), skippable(2)...), func(m *imgspec.Manifest) { m.Layers[0].MediaType = imgspec.MediaTypeImageLayerZstd }},
		"uncompressed":           {raw, func(m *imgspec.Manifest) { m.Layers[0].MediaType = imgspec.MediaTypeImageLayer }},
		"gzip not called so":     {gzipped(t, raw), func(m *imgspec.Manifest) { m.Layers[0].MediaType = imgspec.MediaTypeImageLayer }},
		"Docker schema 2":        {gzipped(t, raw), docker},
		"Docker uncompressed":    {raw, docker},
		"gzip of several parts":  {append(gzipped(t, raw[:700]), gzipped(t, raw[700:])...), func(*imgspec.Manifest) {}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := newFake(t)
			img := changed(t, imageOf(t, c.blob, digest.FromBytes(raw)), c.change)
			var m imgspec.Manifest
			must(t, json.Unmarshal(img.manifest, &m))
			img.mediaType = m.MediaType
			reg.put("app", "1", img)
			s := newService(t, withRegistries(t, insecure(reg.host)))
			s.pull(t, reg.host+"/app:1")
			s.checkFile(t, reg.host+"/app:1", "content")
		})
	}
}

func TestForeignLayersAreRefused(t *testing.T) {
	for name, change := range map[string]func(*imgspec.Manifest){
		"OCI": func(m *imgspec.Manifest) {
			m.Layers[0].MediaType = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
		},
		"with URLs": func(m *imgspec.Manifest) { m.Layers[0].URLs = []string{"http://127.0.0.1:1/layer"} },
		"Docker": func(m *imgspec.Manifest) {
			m.MediaType, m.Config.MediaType = manifest.DockerV2Schema2MediaType, manifest.DockerV2Schema2ConfigMediaType
			m.Layers[0].MediaType = manifest.DockerV2Schema2ForeignLayerMediaTypeGzip
		},
	} {
		t.Run(name, func(t *testing.T) {
			img := changed(t, buildImage(t, nil, 100), change)
			if name == "Docker" {
				img.mediaType = manifest.DockerV2Schema2MediaType
			}
			refused(t, img, errkind.Invalid, nil)
		})
	}
}

// indexFor is an index, or Docker's list, of images for platforms.
func indexFor(t *testing.T, mediaType string, of map[string]testImage) testImage {
	t.Helper()
	index := imgspec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType}
	for platform, img := range of {
		p := imgspec.Platform{OS: "linux", Architecture: platform}
		if arch, variant, ok := cutLast(platform); ok {
			p.Architecture, p.Variant = arch, variant
		}
		index.Manifests = append(index.Manifests, imgspec.Descriptor{
			MediaType: img.mediaType, Digest: img.digest(), Size: int64(len(img.manifest)), Platform: &p,
		})
	}
	body, err := json.Marshal(index)
	must(t, err)
	return testImage{manifest: body, mediaType: mediaType}
}

func cutLast(platform string) (arch, variant string, ok bool) {
	for i := range platform {
		if platform[i] == '/' {
			return platform[:i], platform[i+1:], true
		}
	}
	return platform, "", false
}

func fileImage(t *testing.T, body string) testImage {
	t.Helper()
	raw := archiveOf(t, member{name: "file", body: body})
	return imageOf(t, gzipped(t, raw), digest.FromBytes(raw))
}

func TestIndexes(t *testing.T) {
	const oci, docker = imgspec.MediaTypeImageIndex, manifest.DockerV2ListMediaType
	own, others := fileImage(t, "own"), fileImage(t, "others")
	platforms := map[string]testImage{"arm/v6": others, "arm/v7": others, "arm64/v8": others, "s390x": others, "amd64": own}
	for name, c := range map[string]struct {
		levels int
		kind   string
		of     map[string]testImage
		want   errkind.Kind
	}{
		"OCI index":         {1, oci, platforms, errkind.Other},
		"Docker list":       {1, docker, platforms, errkind.Other},
		"index of an index": {2, oci, platforms, errkind.Other},
		"four indexes":      {4, oci, platforms, errkind.Other},
		"five indexes":      {5, oci, platforms, errkind.Invalid},
		"none for us":       {1, oci, map[string]testImage{"arm/v7": others, "s390x": others}, errkind.NotFound},
		"no image at all":   {1, docker, nil, errkind.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := newFake(t)
			reg.put("app", "own", own)
			reg.put("app", "others", others)
			top := indexFor(t, c.kind, c.of)
			for range c.levels - 1 {
				reg.put("app", "below", top)
				top = indexFor(t, c.kind, map[string]testImage{"amd64": top})
			}
			reg.put("app", "1", top)
			s := newService(t, withRegistries(t, insecure(reg.host)))
			_, err := s.Pull(t.Context(), PullRequest{Image: reg.host + "/app:1"})
			if errkind.Of(err) != c.want || (err == nil) != (c.want == errkind.Other) {
				t.Fatalf("kind %v, want %v: %v", errkind.Of(err), c.want, err)
			}
			if err == nil {
				s.checkFile(t, reg.host+"/app:1", "own")
				s.checkFile(t, reg.host+"/app@"+top.digest().String(), "own")
			}
		})
	}
}

// checkFile checks what is in the file of an image of one.
func (s *testService) checkFile(t *testing.T, name, want string) {
	t.Helper()
	img, err := s.Resolve(name)
	must(t, err)
	r, err := s.store.CreateRootFS(id.NewContainer(), img.ID, storage.RootFSOptions{})
	must(t, err)
	defer func() { must(t, s.store.RemoveRootFS(r.Container)) }()
	if body, err := s.store.ReadFile(r, "/file", 1000); err != nil || string(body) != want {
		t.Errorf("%s: %q, want %q: %v", name, body, want, err)
	}
}
