package crashfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/s3sink/s3sink/internal/vfs"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

// Given the same operations on crashfs and on a real directory, when results and error
// texts are compared, then they are equal.
func TestDir_SameAnswersAsRealDirectory(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("its error texts are others")
	}
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			real := must(vfs.Open(filepath.Join(t.TempDir(), "spool"), vfs.Options{}))(t)
			defer real.Close()
			a := &player{dir: real}
			b := &player{dir: crashfs.New(seed).Dir()}
			defer a.close()
			for step := range 300 {
				got := b.play(rand.New(rand.NewPCG(seed, uint64(step))))
				want := a.play(rand.New(rand.NewPCG(seed, uint64(step))))
				if got != want {
					t.Fatalf("step %d:\ncrashfs: %s\nsystem:  %s", step, got, want)
				}
			}
		})
	}
}

// player runs random operations on a directory and its open handles.
type player struct {
	dir   vfs.Dir
	files []vfs.File
	subs  []vfs.Dir
}

func (p *player) play(rng *rand.Rand) string {
	name := []string{"a", "b", "c", "sub"}[rng.IntN(4)]
	if rng.IntN(4) == 0 {
		odd := []string{"", ".", "..", "sub/a", `a\b`, "x\x00", vfs.LockName, strings.Repeat("n", 255), strings.Repeat("n", 256)}
		name = odd[rng.IntN(len(odd))]
	}
	dir := p.dir
	if len(p.subs) > 0 && rng.IntN(3) == 0 {
		dir = p.subs[rng.IntN(len(p.subs))]
	}
	switch rng.IntN(12) {
	case 0, 1:
		return p.keep("create", name)(dir.Create(name))
	case 2:
		return p.keep("open", name)(dir.Open(name))
	case 3:
		return fmt.Sprint("remove ", name, told(dir.Remove(name)))
	case 4:
		list, err := dir.List()
		return fmt.Sprint("list ", list, told(err))
	case 5:
		sub, err := dir.Sub(name)
		if err == nil {
			p.subs = append(p.subs, sub)
		}
		return fmt.Sprint("sub ", name, told(err))
	case 6:
		return fmt.Sprint("sync directory", told(dir.Sync()))
	case 7:
		if len(p.subs) > 3 {
			return fmt.Sprint("close directory", told(p.subs[rng.IntN(len(p.subs))].Close()))
		}
	}
	if len(p.files) == 0 {
		return "nothing"
	}
	return p.playFile(p.files[rng.IntN(len(p.files))], rng)
}

func (p *player) playFile(f vfs.File, rng *rand.Rand) string {
	switch rng.IntN(7) {
	case 0, 1:
		n, err := f.Append(bytes.Repeat([]byte{byte(1 + rng.IntN(255))}, rng.IntN(5000)))
		return fmt.Sprint("append ", n, told(err))
	case 2:
		p := make([]byte, rng.IntN(3000))
		n, err := f.ReadAt(p, rng.Int64N(8000))
		return fmt.Sprint("read ", n, " ", crc32.ChecksumIEEE(p[:n]), told(err))
	case 3:
		n, err := f.Size()
		return fmt.Sprint("size ", n, told(err))
	case 4:
		return fmt.Sprint("sync", told(f.Sync()))
	case 5:
		return fmt.Sprint("reserve", told(f.Reserve(rng.Int64N(5000)-10)))
	}
	if len(p.files) > 6 {
		return fmt.Sprint("close", told(f.Close()))
	}
	return "nothing"
}

func (p *player) keep(op, name string) func(vfs.File, error) string {
	return func(f vfs.File, err error) string {
		if err == nil {
			p.files = append(p.files, f)
		}
		return fmt.Sprint(op, " ", name, told(err))
	}
}

func (p *player) close() {
	for _, f := range p.files {
		f.Close()
	}
	for _, d := range p.subs {
		d.Close()
	}
}

// told formats an error without the path of the directory.
func told(err error) string {
	if refused := (*vfs.RefusedError)(nil); errors.As(err, &refused) {
		return fmt.Sprint(": refused: ", refused.Reason)
	}
	if err == io.EOF {
		return ": bare EOF"
	}
	return fmt.Sprint(": ", err)
}
