package family

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/splora/splora/model/safetensors"
)

// Hash is a folder's identity, cheap enough to be compared between ranks at every start: the sha256 of config.json and of every
// weight and mask file's name, size, header and content; of a file of more than 8 MiB, 256 pieces of 4 KiB at even distances
// stand for the content (the headers, with the hashes of the weights in mask.safetensors, are taken whole). It finds another
// model, another version or a truncated file, not every flipped bit.
func (f *Folder) Hash() (string, error) {
	h := sha256.New()
	put := func(b []byte) {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(b))))
		h.Write(b)
	}
	put(f.ConfigJSON)
	for _, file := range f.files() {
		put([]byte(filepath.Base(file.Path)))
		put(file.Header)
		if err := sample(h, file); err != nil {
			return "", fmt.Errorf("family: %w", err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// sample hashes size and content of a file, or pieces of it.
func sample(h io.Writer, file *safetensors.File) error {
	const whole, pieces, piece = 8 << 20, 256, 4 << 10
	r, err := os.Open(file.Path)
	if err != nil {
		return err
	}
	defer r.Close()
	fmt.Fprintf(h, "%d\n", file.Size)
	if file.Size <= whole {
		_, err = io.Copy(h, r)
		return err
	}
	for i := range int64(pieces) {
		if _, err := io.Copy(h, io.NewSectionReader(r, (file.Size-piece)*i/(pieces-1), piece)); err != nil {
			return err
		}
	}
	return nil
}
