package image

import (
	"log/slog"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/storage"
)

// The machine-wide files that a configuration may name by default. Unlike any
// other configured file these may be missing.
const (
	DefaultRegistriesConf = "/etc/containers/registries.conf"
	DefaultPolicy         = "/etc/containers/policy.json"
	DefaultCertsDir       = "/etc/containers/certs.d"
	DefaultRegistriesDir  = "/etc/containers/registries.d"
)

// Options configures a Service. No other file of the machine or of a user is
// read, but for detached signatures in /var/lib/containers/sigstore, the
// library's place for registries that RegistriesDir does not mention.
type Options struct {
	Store *storage.Store

	// RegistriesConf is registries.conf, with drop-ins in RegistriesConfDir
	// (default: RegistriesConf + ".d"). "", or the default file missing,
	// means: no mirrors. Short names are Docker Hub's where it has no search
	// registries. A change counts at the next pull.
	RegistriesConf    string
	RegistriesConfDir string

	// Policy is policy.json, read at each pull. "", or the default file
	// missing, means that every image is accepted
	// ({"default":[{"type":"insecureAcceptAnything"}]}).
	Policy string

	// PolicyDir has a NAMESPACE.json for each namespace whose pods have a
	// policy of their own instead of Policy. "": none has.
	PolicyDir string

	AuthFile      string // auth.json, read at each pull; credentials of a request come first; "": none
	CertsDir      string // CAs and client certificates per registry; "": DefaultCertsDir
	RegistriesDir string // where signatures are; "": DefaultRegistriesDir

	// DecryptionKeysDir has the private keys by which encrypted images are
	// decrypted, read at each pull that needs one. "", or no such directory: none.
	DecryptionKeysDir string

	// HelperTimeout bounds one question to a credential helper; 0: DefaultHelperTimeout.
	HelperTimeout time.Duration

	TempDir      string        // for blobs on their way; it is the service's alone, and wiped by New
	StallTimeout time.Duration // a pull fails when the registry sends no byte for this long; 0: DefaultStallTimeout
	MaxDownloads uint          // layers downloaded at a time, of one image and from one registry; 0: DefaultMaxDownloads
	RetryDelay   time.Duration // before a failing registry is asked again, doubled each time; 0: DefaultRetryDelay
	Limits       Limits
	Pinned       []string // names of images that must not be collected (the pause image), or patterns in which * stands for anything
	UserAgent    string
	Log          *slog.Logger // nil discards
}

// Defaults of Options.
const (
	DefaultStallTimeout = time.Minute
	DefaultMaxDownloads = 6
	DefaultRetryDelay   = 500 * time.Millisecond

	DefaultHelperTimeout = 30 * time.Second
)

// PullRequest is one image to fetch.
type PullRequest struct {
	Image string                 // name, name:tag, name@digest; short names as registries.conf says
	Auth  *runtimeapi.AuthConfig // nil or empty: what AuthFile has

	// Namespace is that of the pod that the image is for: its policy decides.
	// "" for nobody's.
	Namespace string

	policy string // the file of Namespace's policy
}
