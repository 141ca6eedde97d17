package image

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/storage"
)

// CRI is an image as ListImages and ImageStatus tell it.
func (s *Service) CRI(img storage.Image) *runtimeapi.Image {
	out := &runtimeapi.Image{
		Id:     "sha256:" + img.ID,
		Size:   img.Size,
		Spec:   &runtimeapi.ImageSpec{Image: "sha256:" + img.ID},
		Pinned: s.Pinned(img),
	}
	for _, name := range img.Names {
		if strings.Contains(name, "@") {
			out.RepoDigests = append(out.RepoDigests, name)
		} else {
			out.RepoTags = append(out.RepoTags, name)
		}
	}
	if img.Config != nil {
		out.Uid, out.Username = user(img.Config.Config.User)
	}
	return out
}

// user splits a config's User (user[:group]) into what CRI wants: a number
// or a name; neither for an image that runs as root by saying nothing.
func user(config string) (*runtimeapi.Int64Value, string) {
	name, _, _ := strings.Cut(config, ":")
	if name == "" {
		return nil, ""
	}
	if uid, err := strconv.ParseInt(name, 10, 64); err == nil {
		return &runtimeapi.Int64Value{Value: uid}, ""
	}
	return nil, name
}

// info is the verbose part of ImageStatus.
type info struct {
	ImageSpec *imgspec.Image    `json:"imageSpec"`
	ChainID   digest.Digest     `json:"chainID"` // "" for an image without layers
	Labels    map[string]string `json:"labels,omitempty"`
	Layers    []layerInfo       `json:"layers"` // bottom first
	Digests   []digest.Digest   `json:"manifests,omitempty"`
}

type layerInfo struct {
	DiffID  digest.Digest `json:"diffID"`
	ChainID digest.Digest `json:"chainID"`
	Layer   string        `json:"layer,omitempty"` // the store's id
}

// Info is ImageStatus's verbose map: one key "info" with JSON.
func (s *Service) Info(img storage.Image) (map[string]string, error) {
	out := info{ImageSpec: img.Config, Digests: img.Digests}
	if img.Config != nil {
		out.Labels = img.Config.Config.Labels
		diffIDs := img.Config.RootFS.DiffIDs
		chain := identity.ChainIDs(slices.Clone(diffIDs))
		for i, diffID := range diffIDs {
			l := layerInfo{DiffID: diffID, ChainID: chain[i]}
			if len(img.Layers) == len(diffIDs) {
				l.Layer = img.Layers[len(diffIDs)-1-i]
			}
			out.Layers = append(out.Layers, l)
			out.ChainID = chain[i]
		}
	}
	body, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", img.ID, err)
	}
	return map[string]string{"info": string(body)}, nil
}

// FsInfo is the answer of ImageFsInfo, from memory: images and writable
// layers apart.
func (s *Service) FsInfo() *runtimeapi.ImageFsInfoResponse {
	images, containers := s.Usage()
	return &runtimeapi.ImageFsInfoResponse{
		ImageFilesystems:     []*runtimeapi.FilesystemUsage{fsUsage(s.store.ImageMountpoint(), images)},
		ContainerFilesystems: []*runtimeapi.FilesystemUsage{fsUsage(s.store.ContainerMountpoint(), containers)},
	}
}

func fsUsage(mountpoint string, u storage.Usage) *runtimeapi.FilesystemUsage {
	return &runtimeapi.FilesystemUsage{
		Timestamp:  u.At.UnixNano(),
		FsId:       &runtimeapi.FilesystemIdentifier{Mountpoint: mountpoint},
		UsedBytes:  &runtimeapi.UInt64Value{Value: u.Bytes},
		InodesUsed: &runtimeapi.UInt64Value{Value: u.Inodes},
	}
}
