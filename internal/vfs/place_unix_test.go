//go:build linux || darwin

package vfs_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/s3sink/s3sink/internal/vfs"
)

// stranger is a user id that no test runs as.
const stranger = 54321

// place is a directory before Open, with its entries.
type place struct {
	owner int // 0 is the user of this process
	mode  fs.FileMode
	files map[string]entry
}

type entry struct {
	owner int
	mode  fs.FileMode // a directory with fs.ModeDir
}

// make makes the directory.
func (p place) make(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "volume")
	check(t, os.Mkdir(path, 0o700))
	for name, e := range p.files {
		at := filepath.Join(path, name)
		if e.mode.IsDir() {
			check(t, os.Mkdir(at, 0o700))
		} else {
			check(t, os.WriteFile(at, []byte("events"), 0o600))
		}
		own(t, at, e.owner)
		check(t, os.Chmod(at, e.mode&^fs.ModeDir))
	}
	own(t, path, p.owner)
	check(t, os.Chmod(path, p.mode))
	return path
}

func own(t *testing.T, path string, user int) {
	t.Helper()
	if user == 0 {
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("SKIP: only root can make a file of another user; run the tests as root")
	}
	check(t, os.Lchown(path, user, -1))
}

func modeOf(t *testing.T, path ...string) fs.FileMode {
	t.Helper()
	return must(os.Lstat(filepath.Join(path...)))(t).Mode()
}

func isJournal(name string) bool { return strings.HasSuffix(name, ".journal") }

// openPlace opens a directory as openSpool does.
func openPlace(path string) (vfs.Dir, vfs.Found, error) {
	var found vfs.Found
	d, err := vfs.Open(path, vfs.Options{JournalFile: isJournal, Found: func(f vfs.Found) { found = f }})
	return d, found, err
}

const (
	setgid = fs.ModeSetgid
	sticky = fs.ModeSticky
	isDir  = fs.ModeDir
)

// Given a directory of a given owner and mode, when it is opened three times,
// then the journal is in the directory itself or in PrivateName, each time in the
// same one, and no other user may use it.
func TestOpen_Place(t *testing.T) {
	t.Parallel()
	spool := func(mode fs.FileMode) map[string]entry {
		return map[string]entry{vfs.LockName: {mode: mode}, "1.journal": {mode: mode}}
	}
	lock := map[string]entry{vfs.LockName: {mode: 0o660}}
	private := map[string]entry{vfs.PrivateName: {mode: isDir | setgid | 0o770}, "other": {mode: 0o644}}
	for name, tt := range map[string]struct {
		place
		private bool
		changed bool
	}{
		"own":                                      {place: place{mode: 0o700}},
		"own, others may read":                     {place: place{mode: 0o755}}, // StateDirectory=, t.TempDir, a Docker volume with a chown
		"own, the group may read":                  {place: place{mode: 0o750}},
		"own, others may enter":                    {place: place{mode: 0o711}},
		"own, setgid":                              {place: place{mode: setgid | 0o700}}, // made below a volume with fsGroup
		"own, the group may write":                 {place: place{mode: 0o775}, private: true},
		"own, all may write":                       {place: place{mode: 0o777}, private: true},
		"own, sticky":                              {place: place{mode: sticky | 0o777}, private: true}, // root and /tmp
		"own, fsGroup":                             {place: place{mode: setgid | 0o770}, private: true},
		"own, with a journal":                      {place: place{mode: 0o700, files: spool(0o600)}},
		"own, with a journal, fsGroup":             {place: place{mode: setgid | 0o770, files: spool(0o660)}, changed: true},
		"own, with a journal, all may write":       {place: place{mode: 0o777, files: spool(0o666)}, changed: true},
		"own, with a journal of readable files":    {place: place{mode: 0o755, files: spool(0o644)}, changed: true},
		"own, with an empty journal, fsGroup":      {place: place{mode: setgid | 0o770, files: lock}, changed: true},
		"own, with a LOCK file, all may write":     {place: place{mode: 0o777, files: lock}, private: true}, // other programs have one too
		"own, with a LOCK file, sticky":            {place: place{mode: sticky | 0o770, files: lock}, private: true},
		"own, with PrivateName":                    {place: place{mode: 0o700, files: private}, private: true, changed: true},
		"another user's, all may write":            {place: place{owner: stranger, mode: 0o777}, private: true}, // emptyDir
		"another user's, sticky":                   {place: place{owner: stranger, mode: sticky | 0o777}, private: true},
		"another user's, with PrivateName":         {place: place{owner: stranger, mode: setgid | 0o775, files: private}, private: true, changed: true},
		"another user's, with a LOCK file":         {place: place{owner: stranger, mode: 0o777, files: map[string]entry{vfs.LockName: {owner: stranger + 1}}}, private: true},
		"another user's, with a third one's files": {place: place{owner: stranger, mode: 0o777, files: map[string]entry{"1.journal": {owner: stranger + 1}}}, private: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := tt.make(t)
			before := modeOf(t, path)
			home, want := path, before
			if tt.private {
				home, want = filepath.Join(path, vfs.PrivateName), isDir|0o700
			} else if before.Perm()&0o022 != 0 {
				want = isDir | 0o700
			}
			for n := range 3 {
				d, found, err := openPlace(path)
				check(t, err)
				if found.Path != home || found.Changed() != (tt.changed && n == 0) {
					t.Errorf("Open %d: found %+v, want %s, changed %t", n, found, home, tt.changed && n == 0)
				}
				check(t, d.Lock(t.Context()))
				create(t, d, string(rune('2'+n))+".journal", "more")
				check(t, d.Close())
				if got := modeOf(t, home); got&^setgid != want&^setgid {
					t.Errorf("Open %d: mode %v, want %v", n, got, want)
				}
			}
			if tt.private && modeOf(t, path) != before {
				t.Errorf("the mode of the shared directory is %v, was %v", modeOf(t, path), before)
			}
			for _, e := range must(os.ReadDir(home))(t) {
				if mode := modeOf(t, home, e.Name()); isJournal(e.Name()) && mode != 0o600 {
					t.Errorf("mode of %s = %v, want 0600", e.Name(), mode)
				}
			}
			if e, ok := tt.files["other"]; ok && modeOf(t, path, "other") != e.mode {
				t.Errorf("a foreign file has mode %v, had %v", modeOf(t, path, "other"), e.mode)
			}
		})
	}
}

// Given a directory whose journal cannot be used, when it is opened, then the error
// names the reason and no mode is changed.
func TestOpen_RefusesPlace(t *testing.T) {
	t.Parallel()
	journal := map[string]entry{"1.journal": {mode: 0o600}}
	strangers := map[string]entry{vfs.LockName: {owner: stranger}, "1.journal": {owner: stranger, mode: 0o660}}
	for name, tt := range map[string]struct {
		place
		reason error
		at     string
	}{
		"another user's journal":              {place{owner: stranger, mode: setgid | 0o770, files: strangers}, vfs.ErrOwner, ""},
		"own journal, another user's now":     {place{owner: stranger, mode: 0o777, files: journal}, vfs.ErrOwner, ""},
		"a journal file of another user":      {place{mode: setgid | 0o700, files: map[string]entry{"1.journal": {owner: stranger, mode: 0o660}}}, vfs.ErrOwner, "1.journal"},
		"another user's PrivateName":          {place{owner: stranger, mode: 0o777, files: map[string]entry{vfs.PrivateName: {owner: stranger, mode: isDir | 0o770}}}, vfs.ErrOwner, vfs.PrivateName},
		"two journals":                        {place{mode: 0o700, files: map[string]entry{"1.journal": {mode: 0o600}, vfs.PrivateName: {mode: isDir | 0o700}}}, vfs.ErrTwoJournals, ""},
		"a file with the name of PrivateName": {place{mode: 0o777, files: map[string]entry{vfs.PrivateName: {mode: 0o600}}}, vfs.ErrNotDirectory, vfs.PrivateName},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := tt.make(t)
			before := modes(t, path)
			refusedAt(t, path, filepath.Join(path, tt.at), tt.reason)
			if after := modes(t, path); !slices.Equal(after, before) {
				t.Errorf("it holds %q, held %q", after, before)
			}
		})
	}
}

// modes lists a tree.
func modes(t *testing.T, path string) (all []string) {
	t.Helper()
	check(t, filepath.WalkDir(path, func(at string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil {
			all = append(all, at+" "+info.Mode().String())
		}
		return err
	}))
	return all
}

func refusedAt(t *testing.T, path, at string, reason error) {
	t.Helper()
	d, _, err := openPlace(path)
	if err == nil {
		d.Close()
	}
	if r := (*vfs.RefusedError)(nil); !errors.As(err, &r) || r.Reason != reason || r.Path != at || r.Detail == "" {
		t.Errorf("Open = %v, want a RefusedError of %s with %q", err, at, reason)
	}
}

// Given a directory that all users may write, when PrivateName is a symlink to a
// directory of this user, then Open does not follow it.
func TestOpen_PrivateNameIsSymlink(t *testing.T) {
	t.Parallel()
	for name, target := range map[string]string{"outside": t.TempDir(), "inside": "mine", "dangling": "nowhere"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := place{mode: 0o777, files: map[string]entry{"mine": {mode: isDir | 0o755}}}.make(t)
			check(t, os.Symlink(target, filepath.Join(path, vfs.PrivateName)))
			refusedAt(t, path, filepath.Join(path, vfs.PrivateName), vfs.ErrSymlink)
			if got := modeOf(t, path, "mine"); got != isDir|0o755 {
				t.Errorf("the directory that the symlink leads to has mode %v now", got)
			}
		})
	}
}
