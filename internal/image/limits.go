package image

import (
	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/storage"
)

// Limits bound what a pull may bring; what is beyond them is refused as
// errkind.Exhausted. Zero fields mean the defaults.
type Limits struct {
	LayerBytes    int64 // unpacked, of one layer
	LayerEntries  int64 // files, directories and so on, of one layer
	ImageBytes    int64 // unpacked, of what one pull fetches
	ImageLayers   int
	DocumentBytes int64 // of a manifest, an index or a configuration; the library takes no more than the default
}

// Defaults of Limits. The kernel's overlay has 500 layers.
const (
	DefaultImageBytes    = 256 << 30
	DefaultImageLayers   = 500
	DefaultDocumentBytes = 4 << 20
)

func (l Limits) withDefaults() Limits {
	if l.ImageBytes == 0 {
		l.ImageBytes = DefaultImageBytes
	}
	if l.ImageLayers == 0 {
		l.ImageLayers = DefaultImageLayers
	}
	if l.DocumentBytes == 0 {
		l.DocumentBytes = DefaultDocumentBytes
	}
	return l
}

// ofLayers are the limits of each layer of one image.
func (l Limits) ofLayers() storage.Limits {
	return storage.Limits{Bytes: l.LayerBytes, Entries: l.LayerEntries, Image: storage.NewBudget(l.ImageBytes)}
}

// document refuses a manifest, an index or a configuration that is too large.
func (l Limits) document(what string, size int64) error {
	if size < 0 {
		return errkind.Errorf(errkind.Invalid, "%s of %d bytes", what, size)
	}
	if size > l.DocumentBytes {
		return errkind.Errorf(errkind.Exhausted, "%s of %d bytes, more than %d", what, size, l.DocumentBytes)
	}
	return nil
}

// layers refuses an image of too many layers, or one that is too large before
// it is unpacked.
func (l Limits) layers(jobs []layerJob) error {
	if len(jobs) > l.ImageLayers {
		return errkind.Errorf(errkind.Exhausted, "image has %d layers, more than %d", len(jobs), l.ImageLayers)
	}
	left := l.ImageBytes
	for _, job := range jobs {
		if job.blob.Size > left {
			return errkind.Errorf(errkind.Exhausted, "image is larger than %d bytes", l.ImageBytes)
		}
		left -= max(job.blob.Size, 0)
	}
	return nil
}
