package image

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containers/ocicrypt"
	"github.com/containers/ocicrypt/config"
	cryptutils "github.com/containers/ocicrypt/utils"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/types"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// Encrypted layers (https://github.com/containers/ocicrypt/blob/main/docs) are
// decrypted between the download and the decompression. What is in the store is
// plain: whoever may have this node's containers may read it.

// maxKeyFile bounds a file of the keys' directory.
const maxKeyFile = 1 << 20

func encrypted(mediaType string) bool { return strings.HasSuffix(mediaType, "+encrypted") }

// unlock finds the node's keys for an image and shows that they open each of
// its layers, the stored ones too: an image that was decrypted once is not
// handed out when its key is gone. nil for one that is not encrypted.
func (f *streamFetcher) unlock(found found) (*config.DecryptConfig, error) {
	var m imgspec.Manifest
	if err := json.Unmarshal(found.manifest, &m); err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "manifest: %w", err)
	}
	m.Layers = slices.DeleteFunc(m.Layers, func(l imgspec.Descriptor) bool { return !encrypted(l.MediaType) })
	if len(m.Layers) == 0 {
		return nil, nil
	}
	keys, err := readKeys(f.o.DecryptionKeysDir)
	if err != nil {
		return nil, err
	}
	for _, l := range m.Layers {
		if _, _, err := ocicrypt.DecryptLayer(keys, nil, l, true); err != nil {
			return nil, errkind.Errorf(errkind.Denied, "layer %s is encrypted, and no key in %q opens it: %s", l.Digest, f.o.DecryptionKeysDir, firstLine(err))
		}
	}
	return keys, nil
}

// firstLine leaves out what each of the library's ways to decrypt has to say.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return strings.TrimSuffix(line, ":")
}

// readKeys reads the private keys of a directory, and the certificates that
// PKCS#7 wants besides. Files that are neither are left alone.
func readKeys(dir string) (*config.DecryptConfig, error) {
	keys := &config.DecryptConfig{Parameters: map[string][][]byte{}}
	if dir == "" {
		return keys, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errkind.Errorf(errkind.Precondition, "decryption keys: %w", err)
	}
	for _, e := range entries {
		body, err := readKey(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, errkind.Errorf(errkind.Precondition, "decryption keys: %w", err)
		}
		if private, err := cryptutils.IsPrivateKey(body, nil); err == nil && private {
			keys.Parameters["privkeys"] = append(keys.Parameters["privkeys"], body)
			keys.Parameters["privkeys-passwords"] = append(keys.Parameters["privkeys-passwords"], nil)
		} else if cryptutils.IsCertificate(body) {
			keys.Parameters["x509s"] = append(keys.Parameters["x509s"], body)
		}
	}
	return keys, nil
}

// readKey reads a regular file, or one that a link leads to; nothing of others.
func readKey(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxKeyFile {
		return nil, err
	}
	return os.ReadFile(path)
}

// decrypted is what a layer's blob contains. Whether it was tampered with is
// known at its end only, as with the digests.
func (s *watchedSource) decrypted(raw io.Reader, blob types.BlobInfo) (io.Reader, error) {
	if !encrypted(blob.MediaType) {
		return raw, nil
	}
	desc := imgspec.Descriptor{MediaType: blob.MediaType, Digest: blob.Digest, Size: blob.Size, Annotations: blob.Annotations}
	plain, _, err := ocicrypt.DecryptLayer(s.keys, raw, desc, false)
	if err != nil {
		return nil, errkind.Errorf(errkind.Denied, "decrypt: %w", err)
	}
	return plain, nil
}
