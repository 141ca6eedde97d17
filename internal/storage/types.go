package storage

import (
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-cri/gantry/internal/id"
)

// Options says where a store lives.
type Options struct {
	Root    string       // the instance's persistent directory; images are under Root/storage, writable layers under Root/containers
	RunRoot string       // the instance's volatile directory
	Log     *slog.Logger // nil discards

	// UsagePeriod is how often writable layers are measured while somebody asks;
	// not positive: every 10 s.
	UsagePeriod time.Duration

	// SELinux is the label of layers; "" is what the node's policy makes of them.
	SELinux string
}

// Image is what the index knows of one stored image. It is shared between
// readers: neither it nor what it points to may be changed.
type Image struct {
	ID           string          // 64 hexadecimal digits: the digest of the config
	Names        []string        // normalized, repo:tag and repo@digest, sorted
	Digests      []digest.Digest // of the manifests (and the index) that the image was pulled by
	TopLayer     string          // "" for an image without layers
	Layers       []string        // top first, layer ids of the store
	Size         uint64          // bytes of the unpacked layers plus config and manifests
	Config       *imgspec.Image
	ConfigDigest digest.Digest
	Created      time.Time // of the image, as its builder says

	lower []string // directories of Layers
}

// RootFS is a container's root filesystem as the kernel's overlay wants it:
// directories, nothing mounted.
type RootFS struct {
	Container id.Container
	ImageID   string
	Lower     []string // top first, at least one
	Upper     string
	Work      string
	IDs       IDMap      // of Upper; the files of Lower have the owners of the image
	Volumes   [][]string // for each volume what Lower is for the image
}

// RootFSOptions say what a container has beyond its image.
type RootFSOptions struct {
	// IDs are those of the user namespace that the container's files are for.
	IDs IDMap
	// Volumes are the ids of images that are mounted in the container. They
	// stay with it, as its own image does.
	Volumes []string
}

// IDMap is how a user namespace maps users and groups. The zero value is the
// node's namespace.
type IDMap struct {
	UIDs IDRange `json:"uids,omitzero"`
	GIDs IDRange `json:"gids,omitzero"`
}

// IDRange is where the ids from 0 up lie on the node. The zero value maps
// nothing: each id is itself.
type IDRange struct {
	Host   uint32 `json:"host"`
	Length uint32 `json:"length"`
}

// onNode is what an id is on the node. One beyond the range belongs to nobody
// in the namespace; its root takes it over.
func (r IDRange) onNode(id uint32) int {
	switch {
	case r.Length == 0:
		return int(id)
	case id >= r.Length:
		return int(r.Host)
	}
	return int(r.Host + id)
}

// Options are the overlay's mount options. Package storage reads inside the
// layers by itself, and follows neither redirects nor metadata-only copies.
func (RootFS) Options() []string {
	return []string{"redirect_dir=off", "metacopy=off", "index=off"}
}

// Usage is what something occupies on the file system.
type Usage struct {
	Bytes  uint64
	Inodes uint64
	At     time.Time // when it was measured
}
