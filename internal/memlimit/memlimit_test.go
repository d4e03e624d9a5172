package memlimit_test

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/fstest"

	"github.com/s3sink/s3sink/internal/memlimit"
)

const v1NoLimit = "9223372036854771712\n" // as Linux writes it where pages have 4 KiB

func TestCgroup_Limits(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		files map[string]string
		want  memlimit.Limit
	}{
		"no cgroups": {nil, memlimit.Limit{}},
		"version 2, in a container": {map[string]string{
			"proc/self/cgroup":         "0::/\n",
			"sys/fs/cgroup/memory.max": "268435456\n",
		}, memlimit.Limit{Bytes: 256 << 20, Of: "/sys/fs/cgroup/memory.max"}},
		"version 2, no limit": {map[string]string{
			"proc/self/cgroup":                                  "0::/system.slice/app.service\n",
			"sys/fs/cgroup/memory.max":                          "max\n",
			"sys/fs/cgroup/system.slice/x":                      "",
			"sys/fs/cgroup/other/memory.max":                    "1\n",
			"sys/fs/cgroup/system.slice/app.service/memory.max": "max\n",
		}, memlimit.Limit{}},
		"version 2, a parent has the smallest": {map[string]string{
			"proc/self/cgroup":                        "0::/kubepods/pod1/app\n",
			"sys/fs/cgroup/kubepods/memory.max":       "8589934592\n",
			"sys/fs/cgroup/kubepods/pod1/memory.max":  "104857600\n",
			"sys/fs/cgroup/kubepods/pod1/app/m":       "",
			"sys/fs/cgroup/kubepods/pod1/app/mem.max": "1\n",
		}, memlimit.Limit{Bytes: 100 << 20, Of: "/sys/fs/cgroup/kubepods/pod1/memory.max"}},
		"version 2, outside of the namespace": {map[string]string{
			"proc/self/cgroup":           "0::/../../app\n",
			"sys/fs/cgroup/memory.max":   "300\n",
			"sys/fs/memory.max":          "1\n",
			"memory.max":                 "1\n",
			"sys/fs/cgroup/a/memory.max": "1\n",
		}, memlimit.Limit{Bytes: 300, Of: "/sys/fs/cgroup/memory.max"}},
		"version 2, with a colon in the name": {map[string]string{
			"proc/self/cgroup":             "0::/a:b\n",
			"sys/fs/cgroup/a:b/memory.max": "300\n",
		}, memlimit.Limit{Bytes: 300, Of: "/sys/fs/cgroup/a:b/memory.max"}},
		"version 1, with the path on the host": {map[string]string{
			"proc/self/cgroup":                           "4:memory:/docker/0123\n3:cpu,cpuacct:/docker/0123\n0::/system.slice\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "134217728\n",
		}, memlimit.Limit{Bytes: 128 << 20, Of: "/sys/fs/cgroup/memory/memory.limit_in_bytes"}},
		"version 1, with another controller": {map[string]string{
			"proc/self/cgroup": "5:cpuset,memory:/app\n",
			"sys/fs/cgroup/memory/app/memory.limit_in_bytes": "134217728\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":     v1NoLimit,
		}, memlimit.Limit{Bytes: 128 << 20, Of: "/sys/fs/cgroup/memory/app/memory.limit_in_bytes"}},
		"version 1, no limit": {map[string]string{
			"proc/self/cgroup":                           "5:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": v1NoLimit,
		}, memlimit.Limit{}},
		"nonsense": {map[string]string{
			"proc/self/cgroup":         "0::/\n\n:\nmemory\n",
			"sys/fs/cgroup/memory.max": "-1\n",
		}, memlimit.Limit{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := fstest.MapFS{}
			for file, text := range tt.files {
				root[file] = &fstest.MapFile{Data: []byte(text)}
			}
			if got := memlimit.Cgroup(root); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// GOMEMLIMIT counts where it is the smallest limit. Not parallel: it is one for the
// whole process.
func TestProcess_GOMEMLIMIT(t *testing.T) {
	of := memlimit.Limit{}
	if runtime.GOOS == "linux" {
		of = memlimit.Cgroup(os.DirFS("/"))
	}
	const soft = 4 << 20 // less than any cgroup that Go runs in
	before := debug.SetMemoryLimit(soft)
	defer debug.SetMemoryLimit(before)
	if got, want := memlimit.Process(), (memlimit.Limit{Bytes: soft, Of: "GOMEMLIMIT"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	debug.SetMemoryLimit(math.MaxInt64)
	if got := memlimit.Process(); got != of {
		t.Errorf("without GOMEMLIMIT: got %+v, want that of the cgroup, %+v", got, of)
	}
}

func BenchmarkProcess(b *testing.B) {
	for b.Loop() {
		memlimit.Process()
	}
}
