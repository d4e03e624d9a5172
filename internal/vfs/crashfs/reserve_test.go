package crashfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/s3sink/s3sink/internal/vfs"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

// reserved makes a file of one synced sector and zeros synced zeros. The disk's free
// blocks hold stale bytes, and more zeros than crashfs keeps.
func reserved(t *testing.T, zeros int64) (*crashfs.FS, vfs.File) {
	t.Helper()
	disk := crashfs.New(1)
	d := disk.Dir()
	old := create(t, d, "old", bytes.Repeat([]byte("stale"), 2000))
	check(t, old.Reserve(128<<10), d.Sync(), d.Remove("old"), d.Sync())
	f := create(t, d, "a", sector('1'))
	if zeros > 0 {
		check(t, f.Reserve(zeros))
	}
	check(t, f.Sync(), d.Sync())
	return disk, f
}

func sector(c byte) []byte { return bytes.Repeat([]byte{c}, 512) }

// content returns the file of a disk, and checks that its first sector is unchanged.
func content(t *testing.T, disk *crashfs.FS) []byte {
	t.Helper()
	got, _ := disk.ReadFile("a")
	if !bytes.HasPrefix(got, sector('1')) {
		t.Fatalf("synced bytes changed: %d bytes", len(got))
	}
	return got
}

// all checks that each outcome of want was seen.
func all(t *testing.T, seen map[string]int, want ...string) {
	t.Helper()
	for _, outcome := range want {
		if seen[outcome] == 0 {
			t.Errorf("never seen: %s in %v", outcome, seen)
		}
	}
}

// Given reserved zeros, when they are read and appended over, then size and content
// match a real file.
func TestReserve_ReadAndAppendOver(t *testing.T) {
	t.Parallel()
	disk, f := reserved(t, 5)
	must(f.Append([]byte("23")))(t)
	check(t, f.Reserve(2))
	must(f.Append([]byte("4567")))(t)
	want := string(sector('1')) + "234567\x00"
	if size := must(f.Size())(t); size != int64(len(want)) {
		t.Errorf("Size = %d, want %d", size, len(want))
	}
	if list := listed(disk); list[0].Size != int64(len(want)) {
		t.Errorf("List = %v, want a size of %d", list, len(want))
	}
	got := make([]byte, len(want))
	must(f.ReadAt(got, 0))(t)
	if string(got) != want {
		t.Errorf("the file ends in %q", got[512:])
	}
	must(f.Append([]byte("89")))(t)
	for name, disk := range map[string]*crashfs.FS{"the process": disk, "the next one": disk.Kill()} {
		if got := content(t, disk); string(got[512:]) != "23456789" {
			t.Errorf("%s sees %q", name, got[512:])
		}
	}
}

// Given synced zeros and synced bytes over them, when the power is cut, then both are
// unchanged.
func TestCrash_SyncedZeros(t *testing.T) {
	t.Parallel()
	disk, f := reserved(t, 3*512)
	must(f.Append(sector('2')))(t)
	check(t, f.Sync())
	want := append(append(sector('1'), sector('2')...), make([]byte, 1024)...)
	for _, disk := range []*crashfs.FS{disk, disk.Kill()} {
		exactly(t, images(disk, func(disk *crashfs.FS) string {
			return fmt.Sprint(bytes.Equal(content(t, disk), want))
		}), "true")
	}
}

// Given unsynced zeros, when the power is cut, then they may be zeros, noise or stale
// bytes, or missing.
func TestCrash_UnsyncedZeros(t *testing.T) {
	t.Parallel()
	disk, f := reserved(t, 0)
	check(t, f.Reserve(2*512))
	all(t, images(disk, func(disk *crashfs.FS) string {
		return sectors(content(t, disk), make([]byte, 3*512), 512)
	}), "|", "n|", "s|", "kk", "kn", "nk", "nn", "ss", "ks", "sk")
	if got := disk.Kill(); !bytes.Equal(content(t, got)[512:], make([]byte, 1024)) {
		t.Error("killed: the zeros have changed")
	}

	disk, f = reserved(t, 0)
	check(t, f.Reserve(2))
	exactly(t, images(disk, func(disk *crashfs.FS) string {
		return fmt.Sprint(len(content(t, disk)))
	}), "512", "513", "514")
}

// Given unsynced bytes over synced zeros, when the power is cut, then every subset of
// their sectors is possible, and the length is unchanged.
func TestCrash_UnsyncedBytesOverSyncedZeros(t *testing.T) {
	t.Parallel()
	disk, f := reserved(t, 4*512)
	more := bytes.Repeat([]byte("new!"), 3*512/4)
	must(f.Append(more))(t)
	want := append(sector('1'), more...)
	seen := images(disk, func(disk *crashfs.FS) string {
		got := content(t, disk)
		if len(got) != 5*512 || bytes.Count(got[4*512:], []byte{0}) != 512 {
			t.Fatalf("synced zeros changed: %d bytes", len(got))
		}
		return sectors(got, want, 512)
	})
	all(t, seen,
		"kkk", "kk0", "k0k", "0kk", "k00", "0k0", "00k", "000", // every subset
		"nkk", "skk", "hkk", "kkt", "nnn", "sss") // every way to be lost

	if got := content(t, disk.Kill()); !bytes.HasPrefix(got, want) || len(got) != 5*512 {
		t.Errorf("killed: %d bytes", len(got))
	}
}

// Given a file whose synced zeros were all overwritten, when the power is cut, then its
// length is unchanged.
func TestCrash_OnlyZerosSynced(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	d := disk.Dir()
	f := must(d.Create("a"))(t)
	check(t, f.Reserve(512), f.Sync(), d.Sync())
	must(f.Append(sector('2')))(t)
	for _, disk := range []*crashfs.FS{disk, disk.Kill()} {
		seen := images(disk, func(disk *crashfs.FS) string {
			got, _ := disk.ReadFile("a")
			return fmt.Sprint(len(got), bytes.Equal(got, sector('2')))
		})
		exactly(t, seen, "512 true", "512 false")
	}
}

// Given bytes appended past synced zeros, when the power is cut, then the file ends
// anywhere after the zeros.
func TestCrash_AppendPastZeros(t *testing.T) {
	t.Parallel()
	disk, f := reserved(t, 4)
	must(f.Append([]byte("23")))(t)
	must(f.Append([]byte("4567")))(t)
	exactly(t, images(disk, func(disk *crashfs.FS) string {
		return fmt.Sprint(len(content(t, disk)))
	}), "516", "517", "518")
}

// Given a failed Sync of bytes over zeros, when a later Sync succeeds, then those bytes
// may still be lost, for the next process too.
func TestSync_RepeatedAfterFailureOverZeros(t *testing.T) {
	t.Parallel()
	disk, f := reserved(t, 3*512)
	must(f.Append(sector('2')))(t)
	disk.FailAt(disk.Ops(), crashfs.EIO)
	if err := f.Sync(); err == nil {
		t.Fatal("Sync did not fail")
	}
	must(f.Append(sector('3')))(t)
	check(t, f.Sync())
	next := disk.Kill()
	check(t, must(next.Dir().Open("a"))(t).Sync())
	evicted := next.Kill()
	for seed := range uint64(100) {
		evicted.Evict(seeded(seed))
	}
	for name, disk := range map[string]*crashfs.FS{"same process": disk, "next process": next} {
		seen := images(disk, func(disk *crashfs.FS) string {
			got := content(t, disk)
			if len(got) != 4*512 || !bytes.Equal(got[1024:], append(sector('3'), make([]byte, 512)...)) {
				t.Fatalf("%s: synced bytes changed: %d", name, len(got))
			}
			return sectors(got[:1024], append(sector('1'), sector('2')...), 512)
		})
		all(t, seen, "k", "0", "n", "s", "h", "t")
	}
	got := content(t, evicted)
	if !bytes.Equal(got[1024:], append(sector('3'), make([]byte, 512)...)) {
		t.Error("Evict changed synced bytes")
	}
	if bytes.Equal(got[512:1024], sector('2')) {
		t.Error("Evict never showed what the failed Sync has lost")
	}
}

// Given zeros whose Sync failed, when bytes are appended over them and synced, then
// the bytes survive.
func TestAppend_OverZerosOfFailedSync(t *testing.T) {
	t.Parallel()
	disk, f := reserved(t, 0)
	check(t, f.Reserve(2*512))
	disk.FailAt(disk.Ops(), crashfs.EIO)
	if err := f.Sync(); err == nil {
		t.Fatal("Sync did not fail")
	}
	must(f.Append(sector('2')))(t)
	check(t, f.Sync())
	seen := images(disk, func(disk *crashfs.FS) string {
		got := content(t, disk)
		if len(got) < 1024 || !bytes.Equal(got[512:1024], sector('2')) {
			t.Fatalf("synced bytes changed: %d", len(got))
		}
		return sectors(got[512:], make([]byte, 1024), 512)
	})
	all(t, seen, "k", "n", "s", "|")
}

// Given a Sync, when bytes are appended over zeros during it, then the next Sync covers
// them, even if this one fails.
func TestSync_AppendOverZerosMeanwhile(t *testing.T) {
	t.Parallel()
	for _, fails := range []bool{false, true} {
		disk, f := reserved(t, 0)
		must(f.Append([]byte("2")))(t)
		check(t, f.Reserve(3))
		disk.Inject(func(op crashfs.Op) error {
			if op.Call != crashfs.CallSync {
				return nil
			}
			must(f.Append([]byte("3")))(t)
			if fails {
				return errors.New("it fails")
			}
			return nil
		})
		if err := f.Sync(); fails != (err != nil) {
			t.Fatal(err)
		}
		disk.Inject(nil)
		third := func(disk *crashfs.FS) string {
			got := content(t, disk)
			switch {
			case !fails && (len(got) != 516 || got[512] != '2' || string(got[514:]) != "\x00\x00"):
				t.Fatalf("synced bytes changed: %q", got[512:])
			case len(got) > 513 && got[513] == '3':
				return "kept"
			}
			return "lost"
		}
		exactly(t, images(disk, third), "kept", "lost")

		next := disk.Kill() // the next Sync covers it, even if this one failed
		check(t, must(next.Dir().Open("a"))(t).Sync())
		exactly(t, images(next, third), "kept")
	}
}

// Given a failed Reserve of any kind, when bytes are appended and synced, then they
// survive.
func TestAppend_AfterFailedReserve(t *testing.T) {
	t.Parallel()
	for _, kind := range crashfs.Kinds() {
		disk, f := reserved(t, 3)
		disk.FailAt(disk.Ops(), kind)
		if err := f.Reserve(4); err == nil {
			t.Fatalf("%v: Reserve did not fail", kind)
		}
		must(f.Append([]byte("2345")))(t)
		check(t, f.Sync())
		exactly(t, images(disk, func(disk *crashfs.FS) string {
			return strings.TrimRight(string(content(t, disk)[512:]), "\x00")
		}), "2345")
	}
}

// Given a count below one, or an opened file, when Reserve is called, then it fails
// and does not count as an operation.
func TestReserve_BadArguments(t *testing.T) {
	t.Parallel()
	disk, f := reserved(t, 0)
	ops := disk.Ops()
	for _, n := range []int64{0, -1} {
		if err := f.Reserve(n); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Reserve(%d) = %v, want fs.ErrInvalid", n, err)
		}
	}
	if got := disk.Ops(); got != ops {
		t.Errorf("%d operations, want %d", got, ops)
	}
	old := must(disk.Dir().Open("a"))(t)
	if err := old.Reserve(1); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Reserve in an opened file = %v, want fs.ErrPermission", err)
	}
}
