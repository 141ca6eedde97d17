package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/moby/profiles/seccomp"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	rspec "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-tools/generate"

	"github.com/gantry-cri/gantry/test/images"
	"github.com/gantry-cri/gantry/test/testenv"
)

// writeSpec writes a config.json that asks for the same as newPod does.
func (f *floor) writeSpec(file, netns, cgroupsPath string) error {
	g, err := generate.New("linux")
	if err != nil {
		return err
	}
	g.SetVersion("1.0.2") // the newest that Debian 12's crun and runc both take
	g.SetRootPath(filepath.Join(f.dir, "rootfs"))
	g.SetProcessArgs(sleepArgs())
	g.SetProcessOOMScoreAdj(containerOOMScore)
	g.SetLinuxCgroupsPath(cgroupsPath)
	g.SetLinuxResourcesCPUShares(containerShares)
	g.SetLinuxResourcesCPUPeriod(containerPeriod)
	g.SetLinuxResourcesCPUQuota(containerQuota)
	g.SetLinuxResourcesMemoryLimit(containerMemory)
	for _, path := range maskedPaths() {
		g.AddLinuxMaskedPaths(path)
	}
	for _, path := range readonlyPaths() {
		g.AddLinuxReadonlyPaths(path)
	}
	if err := g.AddOrReplaceLinuxNamespace(string(rspec.NetworkNamespace), netns); err != nil {
		return err
	}
	f.bindEtc(&g)
	g.Config.Linux.Seccomp, err = seccomp.GetDefaultProfile(g.Config)
	if err != nil {
		return err
	}
	data, err := json.Marshal(g.Config)
	if err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}

func etcFiles() []string { return []string{"hosts", "hostname", "resolv.conf"} }

// bindEtc mounts the three files that a pod's containers share.
func (f *floor) bindEtc(g *generate.Generator) {
	for _, name := range etcFiles() {
		source := filepath.Join(f.dir, name)
		g.AddMount(rspec.Mount{
			Destination: "/etc/" + name, Source: source, Type: "bind", Options: []string{"rbind", "rprivate", "rw"},
		})
	}
}

// unpackImage unpacks the busybox image: the floor mounts nothing.
func (f *floor) unpackImage(ctx context.Context, target string) error {
	root, err := testenv.Root()
	if err != nil {
		return err
	}
	layout, err := images.Build(ctx, filepath.Join(root, ".cache", "images"), images.Demo)
	if err != nil {
		return err
	}
	layers, err := layersOf(layout, busyboxImage)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	for _, layer := range layers {
		if out, err := exec.CommandContext(ctx, "tar", "-C", target, "-xzf", layer).CombinedOutput(); err != nil {
			return fmt.Errorf("unpack %s: %w: %s", busyboxImage, err, out)
		}
	}
	return nil
}

// layersOf lists the files of an image's layers, lowest first.
func layersOf(layout, name string) ([]string, error) {
	var index imgspec.Index
	if err := readJSON(filepath.Join(layout, imgspec.ImageIndexFile), &index); err != nil {
		return nil, err
	}
	blob := func(d imgspec.Descriptor) string {
		return filepath.Join(layout, "blobs", d.Digest.Algorithm().String(), d.Digest.Encoded())
	}
	for _, named := range index.Manifests {
		if named.Annotations[imgspec.AnnotationRefName] != name {
			continue
		}
		var manifest imgspec.Manifest
		if err := readJSON(blob(named), &manifest); err != nil {
			return nil, err
		}
		var files []string
		for _, layer := range manifest.Layers {
			files = append(files, blob(layer))
		}
		return files, nil
	}
	return nil, fmt.Errorf("%s holds no image %s", layout, name)
}

func readJSON(file string, v any) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}
