package s3sink

import (
	"fmt"
	"regexp"
	"strings"
)

// CLI returns a shell script of AWS CLI commands that set the policies up. What
// belongs to nobody that is known, and what would replace a policy that others
// need, is left to the reader, as a comment.
func (p Policies) CLI() string {
	var b strings.Builder
	b.WriteString("#!/bin/sh\nset -eu\n" + p.accounts())
	for _, d := range p {
		fmt.Fprintf(&b, "\n# %s\n", d.title())
		who := parsePrincipal(d.Of)
		document := shellQuote(d.Policy.String())
		switch {
		case d.Kind == TrustPolicy:
			fmt.Fprintf(&b, "trust=%s\naws iam create-role --role-name %s --path %s --assume-role-policy-document \"$trust\" ||\n"+
				"  aws iam update-assume-role-policy --role-name %[2]s --policy-document \"$trust\"\n", document, who.name, who.path)
		case d.Kind == PermissionsPolicy && who.kind != "":
			fmt.Fprintf(&b, "aws iam put-%s-policy --%s-name %s --policy-name %s --policy-document %s\n", who.kind, who.kind, who.name, d.name(), document)
		case d.Kind == BucketPolicy:
			fmt.Fprintf(&b, "# This replaces the bucket's policy. If it has one, add the statements to it.\n"+
				"aws s3api put-bucket-policy --bucket %s --policy %s\n", bucketName(d.Of), document)
		case d.Kind == KeyPolicy:
			fmt.Fprintf(&b, "# Add to the statements of the key's policy (in the console: KMS, the key, Key users):\n%s", commented(d.Policy.String()))
		default:
			fmt.Fprintf(&b, "# Attach to %s:\n%s", d.Of, commented(d.Policy.String()))
		}
	}
	return b.String()
}

// Terraform returns the files of a module that sets the policies up, by name.
// The documents are in a module of their own that needs no provider, so that
// they can be looked at and tested without an account.
func (p Policies) Terraform() map[string]string {
	var documents, main strings.Builder
	documents.WriteString("# The policies of s3sink. This module needs no provider.\n")
	main.WriteString(p.accounts() + "terraform {\n  required_providers {\n    aws = {\n      source = \"hashicorp/aws\"\n    }\n  }\n}\n\n" +
		"module \"policies\" {\n  source = \"./policies\"\n}\n")
	for _, d := range p {
		label := d.label()
		fmt.Fprintf(&documents, "\n# %s\noutput %q {\n  value = <<-EOT\n%s  EOT\n}\n", d.title(), label, indented(heredoc(d.Policy.String())))
		fmt.Fprintf(&main, "\n# %s\n", d.title())
		who := parsePrincipal(d.Of)
		document := "module.policies." + label
		switch {
		case d.Kind == TrustPolicy:
			fmt.Fprintf(&main, "resource \"aws_iam_role\" %q {\n  name               = %q\n  path               = %q\n  assume_role_policy = %s\n}\n", identifier(who.name), who.name, who.path, document)
		case d.Kind == PermissionsPolicy && who.kind != "":
			subject := fmt.Sprintf("%q", who.name)
			if p.has(TrustPolicy, d.Of) {
				subject = fmt.Sprintf("aws_iam_role.%s.name", identifier(who.name))
			}
			fmt.Fprintf(&main, "resource \"aws_iam_%s_policy\" %q {\n  name   = %q\n  %-6s = %s\n  policy = %s\n}\n", who.kind, label, d.name(), who.kind, subject, document)
		case d.Kind == BucketPolicy:
			fmt.Fprintf(&main, "# This replaces the bucket's policy. If it has one, add the statements to it.\n"+
				"resource \"aws_s3_bucket_policy\" %q {\n  bucket = %q\n  policy = %s\n}\n", label, bucketName(d.Of), document)
		case d.Kind == KeyPolicy:
			fmt.Fprintf(&main, "# Add the statements of %s to the key's policy.\n", document)
		default:
			fmt.Fprintf(&main, "# Attach %s to %s.\n", document, d.Of)
		}
	}
	return map[string]string{"main.tf": main.String(), "policies/outputs.tf": documents.String()}
}

// accounts warns where one set of credentials will not do.
func (p Policies) accounts() string {
	seen := map[string]bool{}
	for _, d := range p {
		if parts := strings.Split(d.Of, ":"); len(parts) > 4 && parts[4] != "" {
			seen[parts[4]] = true
		}
	}
	if len(seen) < 2 {
		return ""
	}
	return "# This is for more than one account: apply each part in the account of its ARN.\n"
}

func (p Policies) has(kind PolicyKind, of string) bool {
	for _, d := range p {
		if d.Kind == kind && d.Of == of {
			return true
		}
	}
	return false
}

// name is what the policy is called where it is attached.
func (d PolicyDocument) name() string {
	if d.Policy.Statement[0].Action[0] == "sts:AssumeRole" {
		return "s3sink-assume-role"
	}
	return "s3sink-write"
}

// label names the document in Terraform.
func (d PolicyDocument) label() string {
	kind := map[PolicyKind]string{PermissionsPolicy: "permissions", TrustPolicy: "trust", BucketPolicy: "bucket", KeyPolicy: "key"}[d.Kind]
	who := parsePrincipal(d.Of)
	switch {
	case who.kind != "":
		return identifier(kind + "_" + who.name)
	case d.name() == "s3sink-assume-role":
		return kind + "_caller"
	case d.Kind == PermissionsPolicy:
		return kind + "_writer"
	}
	return kind
}

// principal is an IAM role or user.
type principal struct{ kind, path, name string }

func parsePrincipal(arn string) principal {
	if !principalARN.MatchString(arn) {
		return principal{}
	}
	kind, rest, _ := strings.Cut(strings.Split(arn, ":")[5], "/")
	name := strings.LastIndexByte(rest, '/') + 1
	return principal{kind: kind, path: "/" + rest[:name], name: rest[name:]}
}

func bucketName(arn string) string { return arn[strings.LastIndexByte(arn, ':')+1:] }

var notIdentifier = regexp.MustCompile(`[^0-9A-Za-z_]`)

func identifier(name string) string { return notIdentifier.ReplaceAllString(name, "_") }

// heredoc keeps Terraform from reading its templates into a policy.
func heredoc(text string) string {
	return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(text)
}

func shellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

func commented(text string) string { return eachLine("# ", text) }
func indented(text string) string  { return eachLine("    ", text) }

func eachLine(before, text string) string {
	return before + strings.ReplaceAll(text, "\n", "\n"+before) + "\n"
}
