package crashfs_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

// images crashes a disk many times and counts the results of describe.
func images(disk *crashfs.FS, describe func(*crashfs.FS) string) map[string]int {
	seen := make(map[string]int)
	for seed := range uint64(5000) {
		seen[describe(disk.Crash(seeded(seed)))]++
	}
	return seen
}

// exactly checks that the set of descriptions is want.
func exactly(t *testing.T, seen map[string]int, want ...string) {
	t.Helper()
	got := slices.Sorted(maps.Keys(seen))
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("outcomes\n got %q\nwant %q", got, want)
	}
}

// have returns a function that lists the existing ones of some names.
func have(names ...string) func(*crashfs.FS) string {
	return func(disk *crashfs.FS) string {
		var there []string
		for _, name := range names {
			if _, ok := disk.ReadFile(name); ok {
				there = append(there, name)
			}
		}
		return strings.Join(there, " ")
	}
}

// sectors describes the sectors after the first: kept, zeros, stale, noise, or torn
// with the head or the tail kept.
func sectors(data, want []byte, size int) string {
	var b strings.Builder
	for off := size; off < len(want); off += size {
		end := min(off+size, len(want))
		switch got := data[min(off, len(data)):min(end, len(data))]; {
		case len(got) < end-off:
			b.WriteByte('|') // the file ends here
			return b.String()
		case bytes.Equal(got, want[off:end]):
			b.WriteByte('k')
		case bytes.Count(got, []byte{0}) == len(got):
			b.WriteByte('0')
		case bytes.Contains(got, []byte("stale")):
			b.WriteByte('s')
		case bytes.HasPrefix(got, want[off:off+4]):
			b.WriteByte('h')
		case bytes.HasSuffix(got, want[end-4:end]):
			b.WriteByte('t')
		default:
			b.WriteByte('n')
		}
	}
	return b.String()
}

// Given unsynced sectors, when the power is cut many times, then every subset, every
// kind of loss and every length occurs.
func TestCrash_UnsyncedSectors(t *testing.T) {
	t.Parallel()
	for _, size := range []int{512, 4096} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			disk := crashfs.New(1)
			d := disk.Dir()
			create(t, d, "old", bytes.Repeat([]byte("stale"), 2000))
			check(t, d.Sync(), d.Remove("old"), d.Sync())
			disk = disk.Kill().Crash(seeded(0))
			d = disk.Dir()

			want := bytes.Repeat([]byte("new!"), size)
			f := create(t, d, "a", want[:size])
			check(t, f.Sync(), d.Sync())
			must(f.Append(want[size:]))(t)

			seen := images(disk, func(disk *crashfs.FS) string {
				got, ok := disk.ReadFile("a")
				if !ok || !bytes.HasPrefix(got, want[:size]) || len(got) > len(want) {
					t.Fatalf("synced bytes changed: %d bytes, %t", len(got), ok)
				}
				return sectors(got, want, size)
			})
			for _, outcome := range []string{
				"kkk", "kk0", "k0k", "0kk", "k00", "0k0", "00k", "000", // every subset
				"nkk", "skk", "hkk", "kkt", "nnn", "sss", // every way to be lost
				"|", "k|", "kk|", "0|", "h|", // every length
			} {
				if seen[outcome] == 0 {
					t.Errorf("never seen: %s in %v", outcome, seen)
				}
			}
		})
	}
}

// Given a file that a power cut has lost, when a later cut makes a hole, then the hole
// may hold bytes of that file.
func TestCrash_HolesHoldStaleBytes(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	check(t, create(t, disk.Dir(), "old", bytes.Repeat([]byte("stale"), 200)).Sync())
	seen := make(map[bool]int)
	for seed := range uint64(200) {
		next := disk.Crash(seeded(seed))
		d := next.Dir()
		create(t, d, "a", make([]byte, 2000))
		check(t, d.Sync())
		found := false
		for cut := range uint64(50) {
			got, _ := next.Crash(seeded(cut)).ReadFile("a")
			found = found || bytes.Contains(got, []byte("stale"))
		}
		if have("old")(next) == "old" && found {
			t.Fatal("blocks of a file that is there were given to another")
		}
		seen[found]++
	}
	if seen[true] == 0 {
		t.Error("stale bytes were never seen")
	}
}

// Given unsynced bytes after synced ones, when the power is cut, then the file ends
// anywhere between them.
func TestCrash_UnsyncedLength(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	d := disk.Dir()
	f := create(t, d, "a", []byte("synced"))
	check(t, f.Sync(), d.Sync())
	must(f.Append([]byte("not")))(t)
	seen := images(disk, func(disk *crashfs.FS) string {
		got, _ := disk.ReadFile("a")
		return fmt.Sprint(len(got))
	})
	exactly(t, seen, "6", "7", "8", "9")
}

// Given unsynced creations and a removal, when the power is cut, then every subset of
// them is possible.
func TestCrash_UnsyncedNames(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	d := disk.Dir()
	create(t, d, "r", nil)
	check(t, d.Sync())
	create(t, d, "a", nil)
	create(t, d, "b", nil)
	check(t, d.Remove("r"))
	exactly(t, images(disk, have("a", "b", "r")), "", "a", "b", "r", "a b", "a r", "b r", "a b r")
	if got := have("a", "b", "r")(disk.Kill()); got != "a b" {
		t.Errorf("killed: %q, want a b", got)
	}
}

// Given a name that was created and removed several times, when the power is cut, then
// each of its files is possible.
func TestCrash_NameChangedSeveralTimes(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	d := disk.Dir()
	for _, content := range []string{"1", "2", "3"} {
		f := create(t, d, "a", []byte(content))
		check(t, f.Sync())
		if content != "3" {
			check(t, d.Remove("a"))
		}
	}
	content := func(disk *crashfs.FS) string {
		got, _ := disk.ReadFile("a")
		return string(got)
	}
	exactly(t, images(disk, content), "", "1", "2", "3")

	next := disk.Kill()
	check(t, next.Dir().Sync())
	exactly(t, images(next, content), "3")
}

// Given a synced file with an unsynced name, when the power is cut, then the name may
// be lost.
func TestCrash_FileSyncedNameNot(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	d := disk.Dir()
	sub := must(d.Sub("corrupt"))(t)
	check(t, create(t, sub, "a", []byte("x")).Sync(), sub.Sync())
	content := func(disk *crashfs.FS) string {
		if list := must(disk.Dir().List())(t); len(list) == 0 {
			return "no directory"
		}
		got, _ := disk.ReadFile("corrupt/a")
		return string(got)
	}
	exactly(t, images(disk, content), "no directory", "x")
	next := disk.Kill()
	check(t, next.Dir().Sync())
	exactly(t, images(next, content), "x")
}

// Given a failed Sync, when a later Sync succeeds, then the bytes of the first may
// still be lost, for the next process too.
func TestSync_RepeatedAfterFailure(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	d := disk.Dir()
	f := create(t, d, "a", bytes.Repeat([]byte("1"), 512))
	check(t, f.Sync(), d.Sync())
	must(f.Append(bytes.Repeat([]byte("2"), 512)))(t)
	disk.FailAt(disk.Ops(), crashfs.EIO)
	if err := f.Sync(); err == nil {
		t.Fatal("Sync did not fail")
	}
	must(f.Append(bytes.Repeat([]byte("3"), 512)))(t)
	check(t, f.Sync())

	// The same holds for the next process, which saw only a successful Sync.
	next := disk.Kill()
	again := must(next.Dir().Open("a"))(t)
	check(t, again.Sync())
	for name, disk := range map[string]*crashfs.FS{"same process": disk, "next process": next} {
		t.Run(name, func(t *testing.T) {
			seen := images(disk, func(disk *crashfs.FS) string {
				got, _ := disk.ReadFile("a")
				if len(got) != 1536 || got[0] != '1' || got[1024] != '3' {
					t.Fatalf("synced bytes changed: %d", len(got))
				}
				return map[byte]string{'2': "kept", 0: "lost"}[got[700]]
			})
			if seen["kept"] == 0 || seen["lost"] == 0 {
				t.Errorf("seen %v, want kept and lost", seen)
			}
		})
	}
}

// Given a failed Sync, when clean pages are evicted, then readers see the loss in this
// image only.
func TestEvict_AfterFailedSync(t *testing.T) {
	t.Parallel()
	const part = 512
	lost := 0
	for seed := range uint64(50) {
		disk := crashfs.New(1)
		d := disk.Dir()
		f := create(t, d, "a", bytes.Repeat([]byte("1"), part))
		check(t, f.Sync())
		must(f.Append(bytes.Repeat([]byte("2"), part)))(t)
		disk.FailAt(disk.Ops(), crashfs.EIO)
		_ = f.Sync()
		must(f.Append(bytes.Repeat([]byte("3"), part)))(t)
		next := disk.Kill()
		next.Evict(seeded(seed))

		got := make([]byte, 3*part)
		must(must(next.Dir().Open("a"))(t).ReadAt(got, 0))(t)
		for i, want := range []byte("1?3") {
			if same := bytes.Count(got[i*part:][:part], []byte{want}) == part; want != '?' && !same {
				t.Fatalf("seed %d: part %d has changed", seed, i)
			}
		}
		if got[part+part/2] != '2' {
			lost++
		}
		if old, _ := disk.ReadFile("a"); bytes.Count(old, []byte("2")) != part {
			t.Fatal("the cache of another image has changed")
		}
	}
	if lost == 0 || lost == 50 {
		t.Errorf("lost in %d of 50, want some", lost)
	}
}

// Given a failed Sync of a directory, when the next one succeeds, then the names are on
// disk, or may be lost after ForgetNames.
func TestDirSync_Failed(t *testing.T) {
	t.Parallel()
	run := func(forget bool) *crashfs.FS {
		disk := crashfs.New(1)
		if forget {
			disk.ForgetNames()
		}
		d := disk.Dir()
		create(t, d, "r", nil)
		check(t, d.Sync())
		create(t, d, "a", nil)
		check(t, d.Remove("r"))
		disk.FailAt(disk.Ops(), crashfs.EIO)
		if d.Sync() == nil {
			t.Error("Sync did not fail")
		}
		create(t, d, "b", nil)
		check(t, d.Sync())
		return disk
	}
	exactly(t, images(run(false), have("a", "b", "r")), "a b")
	exactly(t, images(run(true), have("a", "b", "r")), "b", "a b", "b r", "a b r")
}

// Given a Sync, when bytes and names are added during it, then it does not cover them.
func TestSync_ChangesMeanwhile(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	d := disk.Dir()
	f := create(t, d, "a", []byte("1"))
	disk.Inject(func(op crashfs.Op) error {
		switch op.Call {
		case crashfs.CallSync:
			must(f.Append([]byte("2")))(t)
		case crashfs.CallSyncDir:
			create(t, d, "b", nil)
		}
		return nil
	})
	check(t, f.Sync(), d.Sync())
	exactly(t, images(disk, have("a", "b")), "a", "a b")
	exactly(t, images(disk, func(disk *crashfs.FS) string {
		got, _ := disk.ReadFile("a")
		return fmt.Sprint(len(got))
	}), "1", "2")
}

// Given several images of one disk, when one changes, then the others do not.
func TestImages_Independent(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	d := disk.Dir()
	f := create(t, d, "a", []byte("12"))
	check(t, f.Sync(), d.Sync())
	first, second := disk.Kill(), disk.Crash(seeded(1))
	for i, image := range []*crashfs.FS{first, second} {
		check(t, image.Dir().Remove("a"))
		create(t, image.Dir(), "a", []byte{byte(i)})
	}
	if got, _ := disk.Kill().ReadFile("a"); string(got) != "12" {
		t.Errorf("the file is %q now", got)
	}
	if got, _ := second.ReadFile("a"); !bytes.Equal(got, []byte{1}) {
		t.Errorf("the second image's file is %q", got)
	}
}

// Given the same seeds, when the same operations run, then the disks are equal.
func TestCrash_SameSeed(t *testing.T) {
	t.Parallel()
	run := func() (string, []byte) {
		disk := crashfs.New(7)
		d := disk.Dir()
		f := create(t, d, "a", bytes.Repeat([]byte("x"), 3000))
		disk.FailAt(disk.Ops(), crashfs.Short)
		n, err := f.Append(bytes.Repeat([]byte("y"), 3000))
		if err == nil || n >= 3000 {
			t.Fatalf("Append = %d, %v", n, err)
		}
		next := disk.Crash(seeded(2))
		got, _ := next.ReadFile("a")
		return disk.String() + next.String(), got
	}
	state, data := run()
	for range 10 {
		if s, d := run(); s != state || !bytes.Equal(d, data) {
			t.Fatalf("got\n%s\nthen\n%s", state, s)
		}
	}
}

// Given entries made by Put, when the power is cut, then they are on the disk.
func TestPut_SurvivesCrash(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	d := disk.Dir()
	disk.Put("pipe", fs.ModeNamedPipe, nil)
	disk.Put("a", 0, []byte("foreign"))
	must(d.Sub("corrupt"))(t)
	disk.Put("corrupt/b", 0, []byte("below"))
	check(t, d.Sync())
	exactly(t, images(disk, func(disk *crashfs.FS) string {
		a, _ := disk.ReadFile("a")
		b, _ := disk.ReadFile("corrupt/b")
		return string(a) + " " + string(b)
	}), "foreign below")
}
