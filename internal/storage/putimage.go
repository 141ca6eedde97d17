package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/manifest"
	cstorage "go.podman.io/storage"
)

// ImageRecord is an image all of whose layers are stored.
type ImageRecord struct {
	ID       string // digest of Config, 64 hexadecimal digits
	TopLayer string // "" for an image without layers
	Created  time.Time
	Config   []byte

	Manifest []byte   // of this platform
	Indexes  [][]byte // by which it was found

	Signatures [][]byte // simple signatures of Manifest
}

// PutImage records an image, or adds to the record of one that is stored what
// that lacks: it may have been pulled by another index. It gets no name and is
// not listed before Adopt. The caller has called BeginTransfer.
func (s *Store) PutImage(img ImageRecord) error {
	data, err := img.bigData()
	if err != nil {
		return fmt.Errorf("record image %s: %w", img.ID, err)
	}
	s.records.Lock()
	defer s.records.Unlock()
	old, err := s.lib.Image(img.ID)
	if err != nil {
		old = &cstorage.Image{}
	}
	metadata, metaErr := img.metadata(old)
	if metaErr != nil {
		return fmt.Errorf("record image %s: %w", img.ID, metaErr)
	}
	if err == nil && old.TopLayer == img.TopLayer {
		return s.addToImage(old, data, metadata)
	}
	if err == nil { // stored by a tool that names layers otherwise
		if _, err := s.lib.DeleteImage(img.ID, true); err != nil && s.lib.Exists(img.ID) {
			return fmt.Errorf("replace image %s: %w", img.ID, err)
		}
	}
	_, err = s.lib.CreateImage(img.ID, nil, img.TopLayer, metadata, &cstorage.ImageOptions{CreationDate: img.Created, BigData: data})
	if err != nil {
		return fmt.Errorf("record image %s: %w", img.ID, err)
	}
	return nil
}

// addToImage adds what a stored image has not got yet.
func (s *Store) addToImage(old *cstorage.Image, data []cstorage.ImageBigDataOption, metadata string) error {
	for _, d := range data {
		if old.BigDataDigests[d.Key] == d.Digest {
			continue
		}
		digestOf := func([]byte) (digest.Digest, error) { return d.Digest, nil }
		if err := s.lib.SetImageBigData(old.ID, d.Key, d.Data, digestOf); err != nil {
			return fmt.Errorf("record %s of image %s: %w", d.Key, old.ID, err)
		}
	}
	if old.Metadata == metadata {
		return nil
	}
	return s.lib.SetMetadata(old.ID, metadata)
}

// bigData is the image's documents under the keys that the library's own
// image transport uses, so that other tools can read the store.
func (img ImageRecord) bigData() ([]cstorage.ImageBigDataOption, error) {
	configDigest := digest.SHA256.FromBytes(img.Config)
	if configDigest.Encoded() != img.ID {
		return nil, errors.New("the configuration does not match the id")
	}
	data := []cstorage.ImageBigDataOption{{Key: configDigest.String(), Data: img.Config, Digest: configDigest}}
	for _, m := range append([][]byte{img.Manifest}, img.Indexes...) {
		d, err := manifest.Digest(m)
		if err != nil {
			return nil, fmt.Errorf("digest of manifest: %w", err)
		}
		data = append(data, cstorage.ImageBigDataOption{Key: cstorage.ImageDigestManifestBigDataNamePrefix + "-" + d.String(), Data: m, Digest: d})
	}
	main := data[1]
	main.Key = cstorage.ImageDigestBigDataKey
	data = append(data, main)
	if blob := img.signatureBlob(); len(blob) > 0 {
		d := digest.SHA256.FromBytes(blob)
		data = append(data,
			cstorage.ImageBigDataOption{Key: "signatures", Data: blob, Digest: d},
			cstorage.ImageBigDataOption{Key: "signature-" + main.Digest.Encoded(), Data: blob, Digest: d})
	}
	return data, nil
}

func (img ImageRecord) signatureBlob() []byte {
	var blob []byte
	for _, sig := range img.Signatures {
		blob = append(blob, sig...)
	}
	return blob
}

// metadata is the library's, too: where one signature ends. The signatures that
// old has stay, but for those of the same manifest where there are new ones.
func (img ImageRecord) metadata(old *cstorage.Image) (string, error) {
	var m struct {
		Sizes   []int                   `json:"signature-sizes,omitempty"`
		SizesOf map[digest.Digest][]int `json:"signatures-sizes,omitempty"`
	}
	if old.Metadata != "" {
		if err := json.Unmarshal([]byte(old.Metadata), &m); err != nil {
			return "", fmt.Errorf("metadata: %w", err)
		}
	}
	d, err := manifest.Digest(img.Manifest)
	if err != nil {
		return "", fmt.Errorf("digest of manifest: %w", err)
	}
	if len(img.Signatures) > 0 || old.Digest != d { // these are of the main manifest
		m.Sizes = nil
	}
	for _, sig := range img.Signatures {
		m.Sizes = append(m.Sizes, len(sig))
	}
	if len(m.Sizes) > 0 {
		if m.SizesOf == nil {
			m.SizesOf = map[digest.Digest][]int{}
		}
		m.SizesOf[d] = m.Sizes
	}
	body, err := json.Marshal(m)
	return string(body), err
}
