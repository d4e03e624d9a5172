package crashfs_test

import (
	"fmt"
	"testing"

	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

// BenchmarkCrash makes one disk after a power cut, the unit of a crash test.
func BenchmarkCrash(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("files=4/unsynced=%dKB", size>>10), func(b *testing.B) {
			disk := crashfs.New(1)
			d := disk.Dir()
			for _, name := range []string{"a", "b", "c", "d"} {
				f, err := d.Create(name)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := f.Append(make([]byte, size/4)); err != nil {
					b.Fatal(err)
				}
			}
			rng := seeded(1)
			b.ReportAllocs()
			for b.Loop() {
				disk.Crash(rng)
			}
		})
	}
}
