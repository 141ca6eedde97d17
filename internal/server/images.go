package server

import (
	"context"
	"slices"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/image"
	"github.com/gantry-cri/gantry/internal/storage"
)

// PullImage fetches an image; concurrent pulls of one image are one transfer.
func (s *Server) PullImage(ctx context.Context, req *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	name := req.GetImage().GetImage()
	if name == "" {
		return nil, errkind.Errorf(errkind.Invalid, "pull image: image.image is missing")
	}
	if err := s.checkImageSpec(req.GetImage()); err != nil {
		return nil, err
	}
	img, err := s.opts.Images.Pull(ctx, image.PullRequest{
		Image: name, Auth: req.GetAuth(), Namespace: req.GetSandboxConfig().GetMetadata().GetNamespace(),
	})
	if err != nil {
		return nil, pullError(err)
	}
	return &runtimeapi.PullImageResponse{ImageRef: s.opts.Images.CRI(img).GetId()}, nil
}

// ImageStatus reports one image; an image that is not stored is no error: the
// answer has none then.
func (s *Server) ImageStatus(_ context.Context, req *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	name := req.GetImage().GetImage()
	if name == "" {
		return nil, errkind.Errorf(errkind.Invalid, "image status: image.image is missing")
	}
	if err := s.checkImageSpec(req.GetImage()); err != nil {
		return nil, err
	}
	img, err := s.opts.Images.Resolve(name)
	if err != nil {
		return &runtimeapi.ImageStatusResponse{}, unlessNotFound(err)
	}
	resp := &runtimeapi.ImageStatusResponse{Image: s.opts.Images.CRI(img)}
	if req.GetVerbose() {
		if resp.Info, err = s.opts.Images.Info(img); err != nil {
			return nil, err
		}
	}
	return resp, nil
}

// ListImages lists images from memory, all or the one that the filter names.
func (s *Server) ListImages(_ context.Context, req *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error) {
	list, err := s.images(req.GetFilter())
	if err != nil {
		return nil, err
	}
	return &runtimeapi.ListImagesResponse{Images: slices.Collect(each(list, s.opts.Images.CRI))}, nil
}

// images are those that f lets through: all, or the one that it names, which
// need not exist.
func (s *Server) images(f *runtimeapi.ImageFilter) ([]storage.Image, error) {
	if err := s.checkImageSpec(f.GetImage()); err != nil {
		return nil, err
	}
	name := f.GetImage().GetImage()
	if name == "" {
		return s.opts.Images.List(), nil
	}
	img, err := s.opts.Images.Resolve(name)
	if err != nil {
		return nil, unlessNotFound(err)
	}
	return []storage.Image{img}, nil
}

// RemoveImage removes an image with all its names. One that is not stored is no error.
func (s *Server) RemoveImage(ctx context.Context, req *runtimeapi.RemoveImageRequest) (*runtimeapi.RemoveImageResponse, error) {
	name := req.GetImage().GetImage()
	if name == "" {
		return nil, errkind.Errorf(errkind.Invalid, "remove image: image.image is missing")
	}
	if err := s.checkImageSpec(req.GetImage()); err != nil {
		return nil, err
	}
	return &runtimeapi.RemoveImageResponse{}, s.opts.Images.Remove(ctx, name)
}

// ImageFsInfo reports what images and writable layers occupy, from memory.
func (s *Server) ImageFsInfo(context.Context, *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	return s.opts.Images.FsInfo(), nil
}
