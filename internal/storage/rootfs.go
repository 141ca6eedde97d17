package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/statefile"
)

const rootfsVersion = 1

// rootfsRecord is containers/<id>/rootfs.json. It makes a writable layer
// usable after a restart and after its image lost its names.
type rootfsRecord struct {
	layersRecord
	Volumes []layersRecord `json:"volumes,omitempty"`
	IDs     IDMap          `json:"ids,omitzero"`
}

// layersRecord is an image with its layers.
type layersRecord struct {
	Image  string   `json:"image"`
	Layers []string `json:"layers"` // top first
}

// CreateRootFS makes a container's writable layer on top of an image of the
// index. The layers of the image and of the volumes stay until RemoveRootFS,
// whatever happens to their names. errkind.NotFound if an image is not stored.
// A second call with the same arguments returns the same root filesystem.
func (s *Store) CreateRootFS(ctr id.Container, imageID string, o RootFSOptions) (_ RootFS, err error) {
	if !id.Valid(string(ctr)) {
		return RootFS{}, errkind.Errorf(errkind.Invalid, "create root filesystem: %q is not a container id", ctr)
	}
	images, err := s.claim(ctr, append([]string{imageID}, o.Volumes...))
	if err != nil {
		return RootFS{}, fmt.Errorf("create root filesystem of %s: %w", ctr, err)
	}
	rec := rootfsRecord{layersRecord: layersRecord{images[0].ID, images[0].Layers}, IDs: o.IDs}
	r := s.rootFS(ctr, imageID, images[0].lower)
	r.IDs = o.IDs
	for _, img := range images[1:] {
		r.Volumes = append(r.Volumes, img.lower)
		rec.Volumes = append(rec.Volumes, layersRecord{img.ID, img.Layers})
	}
	if _, err := os.Stat(s.rootfsFile(ctr)); err == nil {
		return r, nil
	}
	if err := s.makeLayer(r, rec); err != nil {
		return RootFS{}, errors.Join(fmt.Errorf("create root filesystem of %s: %w", ctr, err), s.RemoveRootFS(ctr))
	}
	return r, nil
}

// claim notes that ctr uses images, its own the first, if they are (still) there.
func (s *Store) claim(ctr id.Container, imageIDs []string) ([]Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	index, images := s.index.Load(), make([]Image, 0, len(imageIDs))
	for _, imageID := range imageIDs {
		img, ok := index.ByID(imageID)
		if !ok {
			return nil, errkind.Errorf(errkind.NotFound, "image %s is not stored", imageID)
		}
		images = append(images, img)
	}
	if used, ok := s.uses[ctr]; ok && !slices.Equal(used.images, imageIDs) {
		return nil, errkind.Errorf(errkind.Exists, "it exists and is of images %v", used.images)
	}
	s.uses[ctr] = useOf(images)
	return images, nil
}

// makeLayer creates the directories, the record last. The upper directory's
// mode and owner are what a container sees at "/": the image's, as far as its ids are.
func (s *Store) makeLayer(r RootFS, rec rootfsRecord) error {
	dir := s.containerPath(r.Container)
	var st unix.Stat_t
	if err := unix.Stat(r.Lower[0], &st); err != nil {
		return fmt.Errorf("layer %s: %w", r.Lower[0], err)
	}
	if err := os.Mkdir(dir, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, d := range []string{r.Upper, r.Work} {
		if err := os.Mkdir(d, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := os.Chown(r.Upper, r.IDs.UIDs.onNode(st.Uid), r.IDs.GIDs.onNode(st.Gid)); err != nil {
		return err
	}
	if err := unix.Chmod(r.Upper, st.Mode&0o7777); err != nil {
		return fmt.Errorf("chmod %s: %w", r.Upper, err)
	}
	return statefile.Write(s.rootfsFile(r.Container), rootfsVersion, rec)
}

// OpenRootFS returns what CreateRootFS returned, also after a restart and
// after the image's removal. errkind.NotFound if there is none.
func (s *Store) OpenRootFS(ctr id.Container, imageID string) (RootFS, error) {
	fail := func(kind errkind.Kind, err error) (RootFS, error) {
		return RootFS{}, errkind.Errorf(kind, "open root filesystem of %s: %w", ctr, err)
	}
	if !id.Valid(string(ctr)) {
		return fail(errkind.Invalid, errors.New("not a container id"))
	}
	var rec rootfsRecord
	err := statefile.Read(s.rootfsFile(ctr), rootfsVersion, &rec)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail(errkind.NotFound, err)
	case err != nil:
		return fail(errkind.Other, err)
	case rec.Image != imageID:
		return fail(errkind.Exists, fmt.Errorf("it is of image %s, not %s", rec.Image, imageID))
	}
	lower, err := s.layersOf(rec.layersRecord)
	if err != nil {
		return fail(errkind.Other, err)
	}
	r := s.rootFS(ctr, imageID, lower)
	r.IDs = rec.IDs
	for _, volume := range rec.Volumes {
		lower, err := s.layersOf(volume)
		if err != nil {
			return fail(errkind.Other, err)
		}
		r.Volumes = append(r.Volumes, lower)
	}
	return r, nil
}

// layersOf finds the directories of an image's layers, also of one that is not
// in the index any more.
func (s *Store) layersOf(rec layersRecord) ([]string, error) {
	if img, ok := s.Images().ByID(rec.Image); ok {
		return img.lower, nil
	}
	return s.layerDirs(rec.Layers)
}

// layerDirs finds the directories of the layers of an image that is not in
// the index.
func (s *Store) layerDirs(layers []string) ([]string, error) {
	if len(layers) == 0 {
		return []string{s.emptyDir()}, nil
	}
	driver, err := s.lib.GraphDriver()
	if err != nil {
		return nil, err
	}
	dirs := make([]string, 0, len(layers))
	for _, l := range layers {
		meta, err := driver.Metadata(l)
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", l, err)
		}
		dirs = append(dirs, shortPath(meta["UpperDir"]))
	}
	return dirs, nil
}

// RemoveRootFS removes a container's writable layer; deleting the files goes
// on in the background, and so does deleting an image that was removed while
// this container used it. A layer that does not exist is no error.
func (s *Store) RemoveRootFS(ctr id.Container) error {
	if !id.Valid(string(ctr)) {
		return errkind.Errorf(errkind.Invalid, "remove root filesystem: %q is not a container id", ctr)
	}
	if err := s.trash.move(s.containerPath(ctr)); err != nil {
		return fmt.Errorf("remove root filesystem of %s: %w", ctr, err)
	}
	if s.unclaim(ctr) {
		s.tasks.Go(s.deleteRemoved)
	}
	return nil
}

// unclaim forgets what ctr uses and reports whether an image of it, or a
// damaged layer, waits to be deleted.
func (s *Store) unclaim(ctr id.Container) bool {
	s.mu.Lock()
	used := s.uses[ctr]
	delete(s.uses, ctr)
	waits := s.aside && len(s.uses) == 0 || s.orphans ||
		slices.ContainsFunc(used.images, func(imageID string) bool { return s.removed[imageID] })
	s.mu.Unlock()
	s.usage.forgetContainer(ctr) // last: a measurement under way is kept only for a use
	return waits
}

// Reclaim removes the writable layers that keep does not claim, and the
// layers and images that nothing uses any more. Called once at start.
func (s *Store) Reclaim(keep func(id.Container) bool) error {
	entries, err := os.ReadDir(s.containersDir())
	if err != nil {
		return fmt.Errorf("reclaim storage: %w", err)
	}
	var errs []error
	for _, e := range entries {
		switch {
		case e.Name() == filepath.Base(s.trashDir()):
		case !id.Valid(e.Name()):
			errs = append(errs, s.trash.move(filepath.Join(s.containersDir(), e.Name())))
		case !keep(id.Container(e.Name())):
			errs = append(errs, s.RemoveRootFS(id.Container(e.Name())))
		}
	}
	errs = append(errs, s.reclaimLayers())
	s.deleteRemoved()
	return errors.Join(errs...)
}

// loadUses reads which container uses which images.
func (s *Store) loadUses() []error {
	entries, err := os.ReadDir(s.containersDir())
	if err != nil {
		return []error{err}
	}
	var problems []error
	for _, e := range entries {
		ctr := id.Container(e.Name())
		if !id.Valid(e.Name()) {
			continue
		}
		var rec rootfsRecord
		if err := statefile.Read(s.rootfsFile(ctr), rootfsVersion, &rec); err != nil {
			problems = append(problems, fmt.Errorf("root filesystem of %s: %w", ctr, err))
			s.uses[ctr] = use{unknown: true}
			continue
		}
		s.uses[ctr] = rec.use()
	}
	return problems
}

func (s *Store) rootFS(ctr id.Container, imageID string, lower []string) RootFS {
	dir := s.containerPath(ctr)
	return RootFS{
		Container: ctr,
		ImageID:   imageID,
		Lower:     lower,
		Upper:     filepath.Join(dir, "upper"),
		Work:      filepath.Join(dir, "work"),
	}
}

func (s *Store) containerPath(ctr id.Container) string {
	return filepath.Join(s.containersDir(), string(ctr))
}

func (s *Store) rootfsFile(ctr id.Container) string {
	return filepath.Join(s.containerPath(ctr), "rootfs.json")
}
