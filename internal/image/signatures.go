package image

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/signature"
)

// signedInstance is an image as policies want it. It is of the source itself:
// the library takes one that is wrapped for a source that knows of GPG
// signatures only, not of sigstore's.
func (s *watchedSource) signedInstance(instance *digest.Digest) *image.UnparsedImage {
	return image.UnparsedInstance(s.ImageSource, instance)
}

// allow asks the policy before anything but the manifest is read.
func (f *streamFetcher) allow(ctx context.Context, found found, policy *signature.Policy, w *watch) error {
	defer w.begin()()
	return ask(ctx, policy, found.signed)
}

// signatures are those that the image has today, kept so that a policy can be
// asked later without the registry. The policy of this pull is content, with
// them or without, so a server of signatures that fails is no reason to fail.
func (f *streamFetcher) signatures(ctx context.Context, found found) [][]byte {
	list, err := found.signatures(ctx)
	if err != nil {
		f.log.Warn("signatures not stored", "image", found.top, "err", err)
		return nil
	}
	return list
}

// signatures are those of found in the form in which the library keeps them.
func (f found) signatures(ctx context.Context) ([][]byte, error) {
	list, err := f.signed.UntrustedSignatures(ctx)
	if err != nil {
		return nil, err
	}
	blobs := make([][]byte, 0, len(list))
	for _, sig := range list {
		blob, err := signatureBlob(sig)
		if err != nil {
			return nil, err
		}
		blobs = append(blobs, blob)
	}
	return blobs, nil
}

// The library's own types of signatures, which it does not export.
type (
	simpleSignature   interface{ UntrustedSignature() []byte }
	sigstoreSignature interface {
		UntrustedMIMEType() string
		UntrustedPayload() []byte
		UntrustedAnnotations() map[string]string
	}
)

// signatureBlob is a signature as the library reads it from its store: a GPG
// message as it is; others after their format's name.
func signatureBlob(sig any) ([]byte, error) {
	switch sig := sig.(type) {
	case simpleSignature:
		return sig.UntrustedSignature(), nil
	case sigstoreSignature:
		body, err := json.Marshal(map[string]any{
			"mimeType": sig.UntrustedMIMEType(), "payload": sig.UntrustedPayload(), "annotations": sig.UntrustedAnnotations(),
		})
		return append([]byte("\x00sigstore-json\n"), body...), err
	}
	return nil, fmt.Errorf("a signature of the unknown kind %T", sig)
}
