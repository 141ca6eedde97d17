package image

import (
	"log/slog"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/storage"
)

// Options configures a Service. Every path may be empty: then the library's
// system-wide default is used (/etc/containers/…), except Policy, where empty
// means that every image is accepted.
type Options struct {
	Store             *storage.Store
	RegistriesConf    string        // registries.conf
	RegistriesConfDir string        // drop-ins; "" with a RegistriesConf: none
	Policy            string        // policy.json; read at each pull
	AuthFile          string        // auth.json; credentials of the request come first
	CertsDir          string        // certs.d: TLS client certificates and CAs per registry
	RegistriesDir     string        // registries.d: where signatures are
	TempDir           string        // for blobs on their way; wiped by New
	StallTimeout      time.Duration // a pull fails after this long without a byte; 0 = 60s
	MaxDownloads      uint          // layers downloaded at a time per pull; 0 = 6
	Pinned            []string      // names of images that must not be collected (the pause image)
	UserAgent         string
	Log               *slog.Logger // nil discards
}

// PullRequest is one image to fetch.
type PullRequest struct {
	Image string                 // name, name:tag, name@digest; short names as registries.conf says
	Auth  *runtimeapi.AuthConfig // nil: what AuthFile has
}
