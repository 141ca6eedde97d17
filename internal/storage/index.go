package storage

import (
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Index is an immutable snapshot of the stored images.
type Index struct {
	images   []Image // newest first
	byID     map[string]int
	byName   map[string]int
	problems []error
}

func newIndex(images []Image) *Index {
	slices.SortStableFunc(images, func(a, b Image) int { return b.Created.Compare(a.Created) })
	x := &Index{images: images, byID: make(map[string]int, len(images)), byName: map[string]int{}}
	for i, img := range images {
		x.byID[img.ID] = i
		for _, name := range img.Names {
			x.byName[name] = i
		}
	}
	return x
}

// List returns all images, newest first. The slice must not be changed.
func (x *Index) List() []Image { return x.images }

// ByID finds an image by its 64 digits.
func (x *Index) ByID(id string) (Image, bool) { return x.at(x.byID, id) }

// ByName finds an image by one of its normalized names.
func (x *Index) ByName(name string) (Image, bool) { return x.at(x.byName, name) }

func (x *Index) at(m map[string]int, key string) (Image, bool) {
	i, ok := m[key]
	if !ok {
		return Image{}, false
	}
	return x.images[i], true
}

// ByIDPrefix returns the images whose id starts with prefix.
func (x *Index) ByIDPrefix(prefix string) []Image {
	var found []Image
	for _, img := range x.images {
		if strings.HasPrefix(img.ID, prefix) {
			found = append(found, img)
		}
	}
	return found
}

// ByDigest finds an image of repo (a normalized name without tag or digest)
// that was pulled by a manifest or index with the digest d.
func (x *Index) ByDigest(repo string, d digest.Digest) (Image, bool) {
	if img, ok := x.ByName(repo + "@" + d.String()); ok {
		return img, true
	}
	for _, img := range x.images {
		if slices.Contains(img.Digests, d) && slices.ContainsFunc(img.Names, func(n string) bool { return RepoOf(n) == repo }) {
			return img, true
		}
	}
	return Image{}, false
}

// ByManifests finds the image that is stored with all of these manifests and
// indexes.
func (x *Index) ByManifests(digests []digest.Digest) (Image, bool) {
	for _, img := range x.images {
		if !slices.ContainsFunc(digests, func(d digest.Digest) bool { return !slices.Contains(img.Digests, d) }) {
			return img, true
		}
	}
	return Image{}, false
}

// without is the index less one image.
func (x *Index) without(id string) *Index {
	images := make([]Image, 0, len(x.images))
	for _, img := range x.images {
		if img.ID != id {
			images = append(images, img)
		}
	}
	y := newIndex(images)
	y.problems = x.problems
	return y
}

// RepoOf is the part of a normalized name before its tag or digest.
func RepoOf(name string) string {
	if repo, _, ok := strings.Cut(name, "@"); ok {
		return repo
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i]
	}
	return name
}
