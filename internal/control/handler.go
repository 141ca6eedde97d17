package control

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/image"
	"github.com/gantry-cri/gantry/internal/storage"
)

// updatePeriod is how often a pull tells how far it is.
const updatePeriod = 200 * time.Millisecond

type handler struct {
	images Images
	log    *slog.Logger
}

// Handler serves an operator's requests. status must not wait for anything.
func Handler(images Images, status func() Status, log *slog.Logger) http.Handler {
	h := &handler{images, log}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/images", h.list)
	mux.HandleFunc("GET /v1/images/inspect", h.inspect)
	mux.HandleFunc("POST /v1/images/pull", h.pull)
	mux.HandleFunc("POST /v1/images/verify", h.verify)
	mux.HandleFunc("POST /v1/images/prune", h.prune)
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { h.answer(w, status()) })
	mux.HandleFunc("GET /v1/pulls", func(w http.ResponseWriter, _ *http.Request) { h.answer(w, h.images.Pulls()) })
	return mux
}

func (h *handler) describe(img storage.Image) Image {
	return Image{
		ID: "sha256:" + img.ID, Names: img.Names, Size: img.Size, Created: img.Created,
		Pinned: h.images.Pinned(img), InUse: h.images.InUse(img),
	}
}

func (h *handler) describeAll(list []storage.Image) []Image {
	out := make([]Image, 0, len(list))
	for _, img := range list {
		out = append(out, h.describe(img))
	}
	return out
}

func (h *handler) list(w http.ResponseWriter, _ *http.Request) {
	h.answer(w, h.describeAll(h.images.List()))
}

func (h *handler) inspect(w http.ResponseWriter, r *http.Request) {
	img, err := h.images.Resolve(r.FormValue("image"))
	if err != nil {
		h.fail(w, err)
		return
	}
	info, err := h.images.Info(img)
	if err != nil {
		h.fail(w, err)
		return
	}
	h.answer(w, Inspection{h.describe(img), json.RawMessage(info["info"])})
}

// pull tells how far the pull is until it ends. A client that goes away leaves
// the transfer to whoever asks again.
func (h *handler) pull(w http.ResponseWriter, r *http.Request) {
	name := r.FormValue("image")
	type result struct {
		img storage.Image
		err error
	}
	done := make(chan result, 1)
	go func() {
		img, err := h.images.Pull(r.Context(), image.PullRequest{Image: name})
		done <- result{img, err}
	}()
	lines := newLines(w)
	ticks := time.NewTicker(updatePeriod)
	defer ticks.Stop()
	for {
		select {
		case res := <-done:
			last := PullUpdate{}
			if res.err != nil {
				last.Error = res.err.Error()
			} else {
				img := h.describe(res.img)
				last.Image = &img
			}
			lines.send(last)
			return
		case <-ticks.C:
			if now, ok := h.progress(name); ok {
				lines.send(PullUpdate{Progress: &now})
			}
		}
	}
}

func (h *handler) progress(name string) (image.Progress, bool) {
	for _, p := range h.images.Pulls() {
		if p.Image == name {
			return p, true
		}
	}
	return image.Progress{}, false
}

// verify looks at the named image, or at all of them.
func (h *handler) verify(w http.ResponseWriter, r *http.Request) {
	list := h.images.List()
	if name := r.FormValue("image"); name != "" {
		img, err := h.images.Resolve(name)
		if err != nil {
			h.fail(w, err)
			return
		}
		list = []storage.Image{img}
	}
	lines := newLines(w)
	for _, img := range list {
		damaged, err := h.images.Damaged(r.Context(), img)
		if err != nil {
			return // the client went away
		}
		lines.send(Verdict{h.describe(img), damaged})
	}
}

func (h *handler) prune(w http.ResponseWriter, r *http.Request) {
	removed, err := h.images.Prune(context.WithoutCancel(r.Context()))
	out := Pruned{Removed: h.describeAll(removed)}
	if err != nil {
		out.Error = err.Error()
	}
	h.answer(w, out)
}

func (h *handler) answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(body); err != nil {
		h.log.Debug("answer not sent", "err", err) // the client went away
	}
}

func (h *handler) fail(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(statusOf(err))
	_ = json.NewEncoder(w).Encode(problem{err.Error()}) // as above
}

func statusOf(err error) int {
	switch errkind.Of(err) {
	case errkind.NotFound:
		return http.StatusNotFound
	case errkind.Invalid:
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

// lines is a stream of JSON values.
type lines struct {
	out   *json.Encoder
	flush func() error
}

func newLines(w http.ResponseWriter) lines {
	w.Header().Set("Content-Type", "application/jsonl")
	return lines{json.NewEncoder(w), http.NewResponseController(w).Flush}
}

// send is of no use to a client that went away, and no harm to anybody.
func (l lines) send(v any) {
	if l.out.Encode(v) == nil {
		_ = l.flush()
	}
}
