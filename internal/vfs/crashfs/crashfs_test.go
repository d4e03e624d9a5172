package crashfs_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/s3sink/s3sink/internal/vfs"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, d vfs.Dir, name string, data []byte) vfs.File {
	t.Helper()
	f := must(d.Create(name))(t)
	must(f.Append(data))(t)
	return f
}

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// Given synced bytes and names, when the power is cut or the process is killed, then
// they are on the disk.
func TestCrash_SyncedBytesAndNames(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	d := disk.Dir()
	want := bytes.Repeat([]byte("event\n"), 1000)
	f := create(t, d, "a", want)
	check(t, f.Sync(), d.Sync())
	must(f.Append([]byte("later")))(t)
	for seed := range uint64(100) {
		got, ok := disk.Crash(seeded(seed)).ReadFile("a")
		if !ok || !bytes.HasPrefix(got, want) {
			t.Fatalf("seed %d: %d bytes, %t", seed, len(got), ok)
		}
	}
	if got, _ := disk.Kill().ReadFile("a"); string(got) != string(want)+"later" {
		t.Errorf("killed: %d bytes", len(got))
	}
	if _, err := f.Append(nil); !errors.Is(err, crashfs.ErrStopped) {
		t.Errorf("Append after the crash = %v, want ErrStopped", err)
	}
}
