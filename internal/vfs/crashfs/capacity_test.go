package crashfs_test

import (
	"errors"
	"syscall"
	"testing"

	"github.com/s3sink/s3sink/internal/vfs"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

// Given a capacity, when files grow past it, then writes are partial, reserved zeros
// keep their room, and a removal frees its room after a Sync.
func TestCapacity_BoundsAllFiles(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	d := disk.Dir()
	if _, err := d.Free(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Free without a capacity: %v", err)
	}
	disk.SetCapacity(1000)
	f := create(t, d, "a", make([]byte, 400))
	check(t, f.Reserve(200))
	g := create(t, d, "b", nil)
	if free := must(d.Free())(t); free != 400 {
		t.Errorf("%d bytes free, want 400", free)
	}
	if n, err := g.Append(make([]byte, 500)); n != 400 || !vfs.IsFull(err) {
		t.Errorf("Append wrote %d, %v, want 400 and ENOSPC", n, err)
	}
	if n, err := f.Append(make([]byte, 201)); n != 200 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Append over zeros wrote %d, %v, want 200 and ENOSPC", n, err)
	}
	if err := f.Reserve(1); !vfs.IsFull(err) {
		t.Errorf("Reserve: %v, want ENOSPC", err)
	}
	if _, err := d.Create("c"); !vfs.IsFull(err) {
		t.Errorf("Create: %v, want ENOSPC", err)
	}
	check(t, d.Remove("b"), g.Close())
	if free := must(d.Free())(t); free != 0 {
		t.Errorf("%d bytes free before the removal is on disk, want 0", free)
	}
	check(t, d.Sync())
	if free := must(d.Free())(t); free != 400 {
		t.Errorf("%d bytes free, want 400", free)
	}
	if free := must(disk.Kill().Dir().Free())(t); free != 400 {
		t.Errorf("the next process: %d bytes free, want 400", free)
	}
}
