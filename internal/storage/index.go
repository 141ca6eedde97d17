package storage

// Index is an immutable snapshot of the stored images.
type Index struct {
	images []Image
}

// List returns all images, newest first. The slice must not be changed.
func (x *Index) List() []Image { return x.images }
