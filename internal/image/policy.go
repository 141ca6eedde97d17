package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// policyFile is where the policy for pods of a namespace is; "" if every image
// is accepted.
func (c configFiles) policyFile(namespace string) (string, error) {
	own, err := c.namespacePolicy(namespace)
	switch {
	case own != "" || err != nil:
		return own, err
	case c.o.Policy == DefaultPolicy && missing(c.o.Policy):
		return "", nil
	}
	return c.o.Policy, nil
}

// namespacePolicy is the file of a namespace's own policy, "" if it has none.
func (c configFiles) namespacePolicy(namespace string) (string, error) {
	if namespace == "" || c.o.PolicyDir == "" {
		return "", nil
	}
	if strings.HasPrefix(namespace, ".") || strings.ContainsAny(namespace, "/\x00") {
		return "", errkind.Errorf(errkind.Invalid, "%q is not a namespace", namespace)
	}
	file := filepath.Join(c.o.PolicyDir, namespace+".json")
	switch _, err := os.Stat(file); {
	case err == nil:
		return file, nil
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	default: // it may be there: no other policy is good enough
		return "", errkind.Errorf(errkind.Precondition, "signature policy of namespace %s: %w", namespace, err)
	}
}

func acceptAnything() *signature.Policy {
	return &signature.Policy{Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()}}
}

// readPolicy reads a file of policyFile.
func readPolicy(file string) (*signature.Policy, error) {
	if file == "" {
		return acceptAnything(), nil
	}
	policy, err := signature.NewPolicyFromFile(file)
	if err != nil {
		return nil, errkind.Errorf(errkind.Precondition, "signature policy %s: %w", file, err)
	}
	return policy, nil
}

// acceptsAnything reports whether a policy asks nothing of any image.
func acceptsAnything(policy *signature.Policy) bool {
	return len(policy.Transports) == 0 && reflect.DeepEqual(policy.Default, acceptAnything().Default)
}

// ask asks a policy for an image. Its errors are those of refusal.
func ask(ctx context.Context, policy *signature.Policy, img types.UnparsedImage) (err error) {
	pc, err := signature.NewPolicyContext(policy)
	if err != nil {
		return fmt.Errorf("signature policy: %w", err)
	}
	defer func() { err = errors.Join(err, pc.Destroy()) }()
	if allowed, err := pc.IsRunningImageAllowed(ctx, img); err != nil || !allowed {
		return refusal(err)
	}
	return nil
}
