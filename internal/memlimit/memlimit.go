// Package memlimit finds how much memory this process may use.
package memlimit

import (
	"io/fs"
	"math"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
)

// Limit is a limit on the memory of the process. The zero value is no limit.
type Limit struct {
	Bytes int64
	Of    string // "GOMEMLIMIT", or the file of a cgroup
}

// Process returns the smallest limit that this process has: GOMEMLIMIT (or
// debug.SetMemoryLimit), and on Linux the limits of its cgroup and the parents of
// that. It reads one file for each of these.
func Process() Limit {
	soft := Limit{Bytes: debug.SetMemoryLimit(-1), Of: "GOMEMLIMIT"}
	if runtime.GOOS != "linux" {
		return smallest(soft)
	}
	return smallest(soft, Cgroup(os.DirFS("/")))
}

// Cgroup returns the smallest memory limit of the cgroups that the process is in, of
// version 2 and 1. root is the root of the file system.
//
// A container sees its own cgroup as the root of the mounted hierarchy, but
// /proc/self/cgroup may name it by its path on the host. So files that are missing
// are passed over, and the root of the hierarchy is read in any case.
func Cgroup(root fs.FS) Limit {
	membership, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return Limit{}
	}
	var limits []Limit
	for line := range strings.Lines(string(membership)) {
		// hierarchy-ID:controller-list:cgroup-path, see cgroups(7)
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(fields) < 3:
		case fields[0] == "0" && fields[1] == "":
			limits = append(limits, upwards(root, "sys/fs/cgroup", fields[2], "memory.max"))
		case slices.Contains(strings.Split(fields[1], ","), "memory"):
			limits = append(limits, upwards(root, "sys/fs/cgroup/memory", fields[2], "memory.limit_in_bytes"))
		}
	}
	return smallest(limits...)
}

// upwards returns the smallest limit of a cgroup and its parents.
func upwards(root fs.FS, mount, cgroup, file string) Limit {
	var limits []Limit
	// Seen from inside a cgroup namespace, a cgroup outside begins with "/..".
	for dir := path.Clean("/" + cgroup); ; dir = path.Dir(dir) {
		name := path.Join(mount, dir, file)
		if text, err := fs.ReadFile(root, name); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil { // else "max"
				limits = append(limits, Limit{Bytes: n, Of: "/" + name})
			}
		}
		if dir == "/" {
			return smallest(limits...)
		}
	}
}

// unlimited is more than any machine has. Version 1 writes "no limit" as the largest
// number of whole pages, and Go as the largest integer.
const unlimited = math.MaxInt64 >> 2

func smallest(limits ...Limit) (least Limit) {
	for _, l := range limits {
		if l.Bytes > 0 && l.Bytes < unlimited && (least.Bytes == 0 || l.Bytes < least.Bytes) {
			least = l
		}
	}
	return least
}
