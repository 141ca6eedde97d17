package images

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	godigest "github.com/opencontainers/go-digest"
)

// Push copies every image of the layout in dir to the registry at address
// (host:port, plain HTTP). The host of a name is left out: what the layout
// calls registry.k8s.io/pause:3.9 becomes address/pause:3.9, for a
// registries.conf that maps the public hosts to address.
func Push(ctx context.Context, dir, address string) error {
	index, err := readIndex(dir)
	if err != nil {
		return err
	}
	p := pusher{base: "http://" + address + "/v2/", dir: dir, done: map[string]bool{}}
	for _, desc := range index.Manifests {
		name := desc.Annotations[imgspec.AnnotationRefName]
		if err := p.image(ctx, name, desc); err != nil {
			return fmt.Errorf("push %s to %s: %w", name, address, err)
		}
	}
	return nil
}

// RepositoryAndTag splits a full name and leaves its host out:
// "docker.io/library/busybox:latest" is "library/busybox", "latest".
func RepositoryAndTag(name string) (repository, tag string) {
	_, rest, _ := strings.Cut(name, "/")
	repository, tag, _ = strings.Cut(rest, ":")
	return repository, tag
}

type pusher struct {
	base string
	dir  string
	done map[string]bool
}

func (p *pusher) image(ctx context.Context, name string, desc imgspec.Descriptor) error {
	repository, tag := RepositoryAndTag(name)
	if p.done[repository+":"+tag] {
		return nil
	}
	data, err := os.ReadFile(blobPath(p.dir, desc.Digest))
	if err != nil {
		return err
	}
	var manifest imgspec.Manifest
	if err := json.Unmarshal(data, &manifest); err != nil {
		return err
	}
	for _, blob := range append(manifest.Layers, manifest.Config) {
		if err := p.blob(ctx, repository, blob.Digest); err != nil {
			return err
		}
	}
	p.done[repository+":"+tag] = true
	return p.put(ctx, p.base+repository+"/manifests/"+tag, imgspec.MediaTypeImageManifest, strings.NewReader(string(data)), int64(len(data)))
}

// blob uploads one blob in one piece, unless the repository has it:
// https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-blobs
func (p *pusher) blob(ctx context.Context, repository string, digest godigest.Digest) error {
	if p.done[repository+"@"+digest.String()] {
		return nil
	}
	resp, err := p.do(ctx, http.MethodHead, p.base+repository+"/blobs/"+digest.String(), "", nil, 0)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		if err := p.upload(ctx, repository, digest); err != nil {
			return err
		}
	}
	p.done[repository+"@"+digest.String()] = true
	return nil
}

func (p *pusher) upload(ctx context.Context, repository string, digest godigest.Digest) error {
	resp, err := p.do(ctx, http.MethodPost, p.base+repository+"/blobs/uploads/", "", nil, 0)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusAccepted {
		return fmt.Errorf("start upload of %s: %s", digest, resp.Status)
	}
	location, err := resp.Location()
	if err != nil {
		return err
	}
	query := location.Query()
	query.Set("digest", digest.String())
	location.RawQuery = query.Encode()

	f, err := os.Open(blobPath(p.dir, digest))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return p.put(ctx, location.String(), "application/octet-stream", f, info.Size())
}

func (p *pusher) put(ctx context.Context, target, contentType string, body io.Reader, size int64) error {
	resp, err := p.do(ctx, http.MethodPut, target, contentType, body, size)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusCreated {
		u, _ := url.Parse(target)
		return fmt.Errorf("PUT %s: %s", u.Path, resp.Status)
	}
	return nil
}

// do sends one request; the response's body is read and closed.
func (p *pusher) do(ctx context.Context, method, target, contentType string, body io.Reader, size int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = size
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if closeErr := resp.Body.Close(); err == nil {
		err = closeErr
	}
	return resp, err
}
