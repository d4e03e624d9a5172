package s3sink_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/s3sink/s3sink"

// arrows lists the imports that files may have, besides the standard library. A
// file may import any package that a row matching it grants. A file that no row
// matches fails the test, so a new package begins with a row here. Our packages
// are named from the root of the module, which is ".".
//
// Two rules matter most: nothing under internal imports the root, and only
// s3put and the files named here import AWS packages.
var arrows = []struct {
	files string // as in [path.Match]
	may   []string
}{
	{"policy/*.go", nil},
	{"migrate/*.go", []string{"."}},
	{"migrate/*_test.go", []string{"s3sinktest", "github.com/aws/aws-sdk-go-v2/aws"}},
	{"cmd/s3sink/*.go", []string{"cmd/s3sink/internal/setup"}},
	{"cmd/s3sink/internal/setup/*.go", []string{".", "internal/terminal", "policy", "s3sinktest", "github.com/aws/aws-sdk-go-v2/aws"}},
	{"cmd/s3sink/internal/setup/*_test.go", []string{"internal/clitest"}},
	{"internal/terminal/*.go", nil},
	{"internal/clitest/*.go", []string{"s3sinktest"}},

	{"internal/barrier/*.go", nil},
	{"internal/budget/*.go", nil},
	{"internal/diagnose/*.go", []string{"policy"}},
	{"internal/memlimit/*.go", nil},
	{"internal/uuid7/*.go", nil},
	{"internal/vfs/*.go", nil},
	{"internal/vfs/crashfs/*.go", []string{"internal/vfs"}},
	{"internal/deflate/*.go", []string{"github.com/klauspost/compress/..."}},
	{"internal/spool/*.go", []string{"internal/deflate", "internal/vfs"}},
	{"internal/spool/*_test.go", []string{"internal/vfs/crashfs"}},
	{"internal/s3put/*.go", []string{"internal/barrier", "github.com/aws/..."}},
	{"internal/upload/*.go", []string{"internal/s3put", "internal/spool"}},

	{"*.go", []string{"internal/barrier", "internal/budget", "internal/deflate", "internal/diagnose", "internal/memlimit", "internal/s3put", "internal/spool", "internal/upload", "internal/uuid7", "internal/vfs", "policy"}},
	{"config.go", []string{"github.com/aws/..."}},
	{"credentials.go", []string{"github.com/aws/..."}},
	{"session.go", []string{"github.com/aws/..."}},
	{"validate.go", []string{"github.com/aws/..."}},
	{"spool_*_test.go", []string{"internal/vfs/crashfs"}},
	{"day_test.go", []string{"internal/vfs/crashfs"}},
	{"metamorphic_test.go", []string{"internal/vfs/crashfs"}},
	{"day_*_test.go", []string{"internal/vfs/crashfs"}},
	{"*_test.go", []string{"migrate", "s3sinktest", "github.com/aws/..."}},
	{"bench_test.go", []string{"github.com/klauspost/compress/gzip"}}, // what we are measured against

	{"s3sinktest/*.go", []string{".", "github.com/aws/aws-sdk-go-v2/aws", "github.com/aws/aws-sdk-go-v2/aws/signer/v4"}},
	{"s3sinktest/*_test.go", []string{"github.com/aws/..."}},
}

// requirements are the modules that the root's go.mod may name. Each is in the
// build of everyone who imports this one.
var requirements = []string{
	"github.com/aws/aws-sdk-go-v2/...",
	"github.com/aws/smithy-go",
	"github.com/klauspost/compress",
}

func TestImportsPointOneWay(t *testing.T) {
	t.Parallel()
	// -find leaves the imports alone: they are read below, file by file and
	// for every system, not for this one only.
	out := goCommand(t, "list", "-e", "-find", "-json=ImportPath,Dir,GoFiles,CgoFiles,IgnoredGoFiles,TestGoFiles,XTestGoFiles", "./...")
	seen := 0
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath, Dir                                              string
			GoFiles, CgoFiles, IgnoredGoFiles, TestGoFiles, XTestGoFiles []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for _, list := range [][]string{p.GoFiles, p.CgoFiles, p.IgnoredGoFiles, p.TestGoFiles, p.XTestGoFiles} {
			for _, name := range list {
				seen++
				checkImports(t, p.Dir, local(p.ImportPath), name)
			}
		}
	}
	if seen == 0 {
		t.Error("go list named no files")
	}
}

// checkImports reports each import of dir/name, a file of package pkg, that
// arrows does not grant.
func checkImports(t *testing.T, dir, pkg, name string) {
	file := path.Join(pkg, name)
	may := []string{pkg} // its tests outside the package import it
	rows := 0
	for _, row := range arrows {
		if ok, err := path.Match(row.files, file); err != nil {
			t.Fatalf("%s: %v", row.files, err)
		} else if ok {
			rows++
			may = append(may, row.may...)
		}
	}
	if rows == 0 {
		t.Errorf("%s: no row in arrows (imports_test.go) matches this file. Add %q with the packages it may import, and add %q to the rows of those who import it.",
			file, path.Join(pkg, "*.go"), pkg)
		return
	}
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, filepath.Join(dir, name), nil, parser.ImportsOnly)
	if err != nil {
		t.Error(err)
		return
	}
	for _, spec := range f.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		if !standard(imported) && !matchesAny(may, local(imported)) {
			t.Errorf("%s:%d imports %s, which arrows (imports_test.go) does not grant it: %q",
				file, fset.Position(spec.Pos()).Line, local(imported), may)
		}
	}
}

func TestRequirementsAreFew(t *testing.T) {
	t.Parallel()
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(goCommand(t, "mod", "edit", "-json"), &mod); err != nil {
		t.Fatal(err)
	}
	for _, r := range mod.Require {
		if !r.Indirect && !matchesAny(requirements, r.Path) {
			t.Errorf("go.mod requires %s, which every user would build; CONTRIBUTING.md says when that is worth it", r.Path)
		}
	}
}

// goCommand returns what the go command prints in the module's root.
func goCommand(t *testing.T, args ...string) []byte {
	t.Helper()
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("there is no go command here: ", err)
	}
	cmd := exec.CommandContext(t.Context(), tool, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return out
}

// local shortens the path of one of our packages.
func local(importPath string) string {
	if importPath == module {
		return "."
	}
	return strings.TrimPrefix(importPath, module+"/")
}

// standard reports whether an import path is the standard library's: no other
// path begins without a dot in its first element.
func standard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

// matchesAny reports whether one of the patterns is the path or, ending in
// /..., covers it.
func matchesAny(patterns []string, importPath string) bool {
	for _, p := range patterns {
		if prefix, ok := strings.CutSuffix(p, "/..."); ok && strings.HasPrefix(importPath+"/", prefix+"/") || p == importPath {
			return true
		}
	}
	return false
}
