package s3sink_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/s3sink/s3sink/s3sinktest"
)

// readers are programs that unpack the file named by their last argument.
// Python's zlib and Node represent programs that stop after the first gzip
// member.
var readers = map[string][]string{
	"zcat":        {"zcat"},
	"python gzip": {"python3", "-c", "import gzip,sys; sys.stdout.buffer.write(gzip.open(sys.argv[1]).read())"},
	"python zlib": {"python3", "-c", "import zlib,sys; sys.stdout.buffer.write(zlib.decompress(open(sys.argv[1],'rb').read(),31))"},
	"node gunzip": {"node", "-e", "process.stdout.write(require('zlib').gunzipSync(require('fs').readFileSync(process.argv[1])))"},
	"node stream": {"node", "-e", "new Response(new Blob([require('fs').readFileSync(process.argv[1])]).stream().pipeThrough(new DecompressionStream('gzip'))).arrayBuffer().then(b => process.stdout.write(Buffer.from(b)))"},
}

// Other programs read the same lines as Go.
func TestReaders(t *testing.T) {
	t.Parallel()
	server, cfg := s3sinktest.New(t)
	cfg.MaxObjectBytes = 1_000_000
	cfg.MaxEventBytes = 50_000
	sink := open(t, cfg)
	var want bytes.Buffer
	for _, line := range corpus()[:8000] {
		want.Write(line)
		want.WriteByte('\n')
		if err := sink.TrackLineContext(t.Context(), line); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, sink)
	all := objects(t, server, s3sinktest.Bucket)
	if len(all) < 2 {
		t.Fatalf("%d objects", len(all))
	}
	dir := t.TempDir()
	var files []string
	for _, o := range all {
		name := filepath.Join(dir, filepath.Base(o.Key))
		if err := os.WriteFile(name, o.Body, 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, name)
	}
	for name, command := range readers {
		t.Run(name, func(t *testing.T) {
			program, err := exec.LookPath(command[0])
			if err != nil {
				t.Skipf("SKIP: %s is not on this machine", command[0])
			}
			var got []byte
			for _, file := range files {
				args := append(append([]string(nil), command[1:]...), file)
				out, err := exec.CommandContext(t.Context(), program, args...).Output()
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, out...)
			}
			if !bytes.Equal(got, want.Bytes()) {
				t.Errorf("%d bytes, want the %d that were tracked", len(got), want.Len())
			}
		})
	}
}
