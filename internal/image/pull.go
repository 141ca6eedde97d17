package image

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.podman.io/image/v5/docker/reference"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/storage"
)

// Pull fetches an image and returns it. Concurrent calls for one name with
// the same credentials and policy share one transfer; it goes on when ctx ends, and a
// retry joins it. Kinds: NotFound, Denied (credentials or policy), Invalid,
// Unavailable, Timeout (stalled, or ctx ended), Exhausted (disk),
// Precondition (a broken configuration file).
func (s *Service) Pull(ctx context.Context, r PullRequest) (storage.Image, error) {
	named, err := reference.ParseDockerRef(r.Image)
	if err != nil {
		return storage.Image{}, errkind.Errorf(errkind.Invalid, "pull %q: %w", r.Image, err)
	}
	now := s.now()
	if r.policy, err = now.files.policyFile(r.Namespace); err != nil {
		return storage.Image{}, fmt.Errorf("pull %q: %w", r.Image, err)
	}
	key := newFlightKey(r, named)
	img, err := s.flights.join(ctx, key, r.Image, func(ctx context.Context, p *progress) (storage.Image, error) {
		return s.pull(ctx, now, r, p)
	})
	if err != nil {
		return storage.Image{}, fmt.Errorf("pull %q: %w", r.Image, err)
	}
	return img, nil
}

// pull tries the candidates until one has the image.
func (s *Service) pull(ctx context.Context, with *setup, r PullRequest, p *progress) (storage.Image, error) {
	list, err := with.files.candidates(r)
	if err != nil {
		return storage.Image{}, err
	}
	defer p.tell(s.log)()
	start := time.Now()
	var errs []error
	for _, c := range list {
		img, err := with.fetch.Fetch(ctx, c, p)
		if err == nil {
			done := p.get()
			s.log.Info("image pulled", "name", c.ref, "image", img.ID, "from", done.From, "layers", done.Layers,
				"received", done.Received, "reused", done.Reused, "bytes", img.Size, "took", time.Since(start))
			return img, nil
		}
		s.log.Warn("image not pulled", "name", c.ref, "took", time.Since(start), "err", err)
		errs = append(errs, err)
	}
	return storage.Image{}, worst(errs)
}

// worst joins the errors of several candidates under the kind that says most:
// that one registry does not have the image matters only if all say so.
func worst(errs []error) error {
	kind := errkind.NotFound
	for _, err := range errs {
		if k := errkind.Of(err); k != errkind.NotFound {
			kind = k
			break
		}
	}
	return errkind.Wrap(kind, errors.Join(errs...))
}

// flightKey is what makes two pulls the same one.
type flightKey struct {
	name                                                 string
	username, password, auth, server, identity, registry string
	policy                                               string
}

func newFlightKey(r PullRequest, named reference.Named) flightKey {
	name := r.Image // a short name: what it means is found out later
	if reference.Domain(named) != "docker.io" {
		name = named.String()
	}
	a := r.Auth
	if a == nil {
		a = &runtimeapi.AuthConfig{}
	}
	return flightKey{name, a.Username, a.Password, a.Auth, a.ServerAddress, a.IdentityToken, a.RegistryToken, r.policy}
}

// flights are the pulls under way.
type flights struct {
	ctx    context.Context // ends with close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex // guards flying
	flying map[flightKey]*flight
}

type flight struct {
	progress *progress
	done     chan struct{} // closed when img and err are final
	img      storage.Image
	err      error
}

func (f *flights) init() {
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.flying = map[flightKey]*flight{}
}

func (f *flights) close() {
	f.cancel()
	f.wg.Wait()
}

// join waits for the flight of key, starting it with work if there is none.
// When ctx ends first, the flight goes on.
func (f *flights) join(ctx context.Context, key flightKey, image string, work func(context.Context, *progress) (storage.Image, error)) (storage.Image, error) {
	fl := f.take(key, image, work)
	select {
	case <-fl.done:
		return fl.img, fl.err
	case <-ctx.Done():
		return storage.Image{}, errkind.Errorf(errkind.Timeout, "the transfer goes on: %w", context.Cause(ctx))
	}
}

func (f *flights) progress() []Progress {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]Progress, 0, len(f.flying))
	for _, fl := range f.flying {
		list = append(list, fl.progress.get())
	}
	return list
}

func (f *flights) take(key flightKey, image string, work func(context.Context, *progress) (storage.Image, error)) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl, ok := f.flying[key]; ok {
		return fl
	}
	fl := &flight{progress: newProgress(image), done: make(chan struct{})}
	f.flying[key] = fl
	f.wg.Go(func() {
		fl.img, fl.err = work(f.ctx, fl.progress)
		f.mu.Lock()
		delete(f.flying, key)
		f.mu.Unlock()
		close(fl.done)
	})
	return fl
}
