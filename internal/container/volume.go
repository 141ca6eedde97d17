package container

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/monitor"
	"github.com/gantry-cri/gantry/internal/storage"
)

// An image volume is mounted as the root filesystem is: by the monitor's child,
// in the runtime's own mount namespace, read-only, on an empty directory of the
// bundle, from where the runtime binds it into the container.

func (c *Container) volumeDir(v Volume) string {
	return filepath.Join(c.Dir(), volumesDir, strconv.Itoa(v.Mount))
}

func (c *Container) makeVolumeDirectories() error {
	for _, v := range c.Record.Volumes {
		if err := os.MkdirAll(c.volumeDir(v), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// locateVolumes fills in where the runtime finds each image of the mounts.
func (c *Container) locateVolumes(root storage.RootFS, sources []string) error {
	mounts := c.Config().GetMounts()
	for i, v := range c.Record.Volumes {
		inside, err := c.env.Storage.LocateInVolume(root, i, mounts[v.Mount].GetImageSubPath())
		if err != nil {
			return fmt.Errorf("mount %s: %w", mounts[v.Mount].GetContainerPath(), err)
		}
		sources[v.Mount] = filepath.Join(c.volumeDir(v), inside)
	}
	return nil
}

// mountOptions are those of every overlay of the container.
func (c *Container) mountOptions(root storage.RootFS) []string {
	return c.labels.Overlay(root.Options())
}

func (c *Container) volumeMounts(root storage.RootFS) []monitor.Mount {
	var mounts []monitor.Mount
	for i, v := range c.Record.Volumes {
		mounts = append(mounts, monitor.Mount{Overlay: &monitor.Overlay{
			Target:  c.volumeDir(v),
			Lower:   root.Volumes[i],
			Options: c.mountOptions(root),
			IDsPID:  c.idsPID(),
		}})
	}
	return mounts
}

// idsPID is the process whose user namespace maps the ids of image layers; 0
// if the pod has none of its own.
func (c *Container) idsPID() int {
	if c.pod.UserNS == nil {
		return 0
	}
	return c.pod.PausePID()
}

// Mounts are those of the request, as the status reports them: each image with
// the reference of what was mounted.
func (c *Container) Mounts() []*runtimeapi.Mount {
	mounts := c.Config().GetMounts()
	if len(c.Record.Volumes) == 0 {
		return mounts
	}
	mounts = append([]*runtimeapi.Mount(nil), mounts...)
	for _, v := range c.Record.Volumes {
		m := proto.CloneOf(mounts[v.Mount])
		m.Image.ImageRef = v.ImageRef
		mounts[v.Mount] = m
	}
	return mounts
}
