package setup

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/internal/terminal"
	"github.com/s3sink/s3sink/policy"
)

// printer prints the results: as text immediately, or as one JSON object at the
// end.
type printer struct {
	w      io.Writer
	json   bool
	color  bool
	object output // for -json
}

// output is the JSON object of -json.
type output struct {
	// Policies has the form of -print: a list of documents, files by name, or a
	// script.
	Policies      any                      `json:"policies,omitempty"`
	Report        *s3sink.ValidationReport `json:"report,omitempty"`
	Demonstration *demonstration           `json:"demonstration,omitempty"`
	Error         string                   `json:"error,omitempty"`
}

func newPrinter(stdout io.Writer, asJSON bool) *printer {
	return &printer{w: stdout, json: asJSON, color: useColor(terminal.Is(stdout), os.Getenv)}
}

// policies prints the policies in the form of -print. With dir it also writes
// the Terraform module.
func (p *printer) policies(form, dir string, policies policy.Set) error {
	files := policies.Terraform()
	if dir != "" {
		if err := writeFiles(dir, files); err != nil {
			return err
		}
	}
	if p.json {
		p.object.Policies = map[string]any{asJSON: policies, asCLI: policies.CLI(), asTerraform: files}[form]
		return nil
	}
	switch {
	case form == asCLI:
		p.text("%s", policies.CLI())
	case form == asJSON:
		p.text("%s", policies)
	case dir == "":
		for i, name := range slices.Sorted(maps.Keys(files)) {
			p.text("%s# %s\n\n%s", map[bool]string{false: "\n"}[i == 0], name, files[name])
		}
	default:
		for _, name := range slices.Sorted(maps.Keys(files)) {
			p.text("%s\n", filepath.Join(dir, filepath.FromSlash(name)))
		}
	}
	return nil
}

// report prints the report of Validate.
func (p *printer) report(report *s3sink.ValidationReport) {
	p.object.Report = report
	p.text("%s", p.render(report))
}

// render returns the report as text, with colors if the output is a terminal.
func (p *printer) render(report *s3sink.ValidationReport) string {
	if !p.color {
		return report.String()
	}
	var b strings.Builder
	_ = report.WriteColored(&b) // a Builder returns no error
	return b.String()
}

// text prints text unless -json is set.
func (p *printer) text(format string, args ...any) {
	if !p.json {
		fmt.Fprintf(p.w, format, args...)
	}
}

// finish prints the JSON object with err, if -json is set.
func (p *printer) finish(err error) error {
	if !p.json {
		return nil
	}
	if err != nil {
		p.object.Error = err.Error()
	}
	e := json.NewEncoder(p.w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(p.object)
}

// documentsFile is a file that other Terraform modules are unlikely to have.
// Its first line identifies modules of this program.
const documentsFile = "policies/outputs.tf"

// writeFiles writes the Terraform module into dir. It overwrites a module that
// this program wrote, and no other file.
func writeFiles(dir string, files map[string]string) error {
	path := func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	first, _, _ := strings.Cut(files[documentsFile], "\n")
	existing, err := os.ReadFile(path(documentsFile))
	isOurs := err == nil && strings.HasPrefix(string(existing), first+"\n")
	names := slices.Sorted(maps.Keys(files))
	for _, name := range names {
		if _, err := os.Lstat(path(name)); err == nil && !isOurs {
			return fmt.Errorf("-dir: %s was not written by this program; choose another directory", path(name))
		}
	}
	for _, name := range names {
		err := os.MkdirAll(filepath.Dir(path(name)), 0o755)
		if err == nil {
			err = os.WriteFile(path(name), []byte(files[name]), 0o644)
		}
		if err != nil {
			return fmt.Errorf("-dir: %w", err)
		}
	}
	return nil
}
