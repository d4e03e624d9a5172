package s3sink

import (
	"fmt"
	"regexp"
	"strings"
)

// CLI returns a shell script of AWS CLI commands that set the policies up. Where
// they belong to more than one account it does the parts of the account that it
// runs in. What belongs to nobody that is known, and what would replace a policy
// that others need, is left to the reader, as a comment.
func (p Policies) CLI() string {
	var b strings.Builder
	b.WriteString("#!/bin/sh\nset -eu\n")
	several := p.inSeveralAccounts()
	if several {
		b.WriteString("# This is for more than one account: run it in each. It does the parts of that account.\n" +
			"account=$(aws sts get-caller-identity --query Account --output text)\n")
	}
	for _, d := range p {
		fmt.Fprintf(&b, "\n# %s\n", d.title())
		command := d.command()
		if here := d.condition(); several && command != "" && here != "" {
			command = fmt.Sprintf("if [ \"$account\" %s ]; then\n%sfi\n", here, command)
		}
		b.WriteString(command)
		switch {
		case command != "":
		case d.Kind == KeyPolicy:
			fmt.Fprintf(&b, "# Add to the statements of the key's policy (in the console: KMS, the key, Key users):\n%s", commented(d.Policy.String()))
		default:
			fmt.Fprintf(&b, "# Attach to %s:\n%s", d.Of, commented(d.Policy.String()))
		}
	}
	return b.String()
}

// command sets one document up, or is "" if that is left to the reader.
func (d PolicyDocument) command() string {
	who := parsePrincipal(d.Of)
	document, name := shellQuote(d.Policy.String()), shellWord(who.name)
	switch {
	case d.Kind == TrustPolicy:
		return fmt.Sprintf("# "+replacesTrust+"trust=%s\naws iam create-role --role-name %s --path %s --assume-role-policy-document \"$trust\" ||\n"+
			"  aws iam update-assume-role-policy --role-name %[2]s --policy-document \"$trust\"\n", document, name, shellWord(who.path))
	case d.Kind == PermissionsPolicy && who.kind != "":
		return fmt.Sprintf("aws iam put-%s-policy --%s-name %s --policy-name %s --policy-document %s\n", who.kind, who.kind, name, d.name(), document)
	case d.Kind == BucketPolicy:
		return fmt.Sprintf("# "+replacesBucket+"aws s3api put-bucket-policy --bucket %s --policy %s\n", bucketName(d.Of), document)
	}
	return ""
}

const (
	replacesTrust  = "If there is such a role, this replaces its trust policy. Keep the statements for others in it.\n"
	replacesBucket = "This replaces the bucket's policy. If it has one, add the statements to it.\n"
)

// Terraform returns the files of a module that sets the policies up, by name.
// The documents are in a module of their own that needs no provider, so that
// they can be looked at and tested without an account.
func (p Policies) Terraform() map[string]string {
	var documents, main strings.Builder
	documents.WriteString("# The policies of s3sink. This module needs no provider.\n")
	if p.inSeveralAccounts() {
		main.WriteString("# This is for more than one account: apply each part in the account of its ARN.\n")
	}
	main.WriteString("terraform {\n  required_providers {\n    aws = {\n      source = \"hashicorp/aws\"\n    }\n  }\n}\n\n" +
		"module \"policies\" {\n  source = \"./policies\"\n}\n")
	labels, roles := unique{}, unique{}
	resources := map[string]string{} // of roles, by ARN
	for _, d := range p {
		label := labels.name(d.label())
		fmt.Fprintf(&documents, "\n# %s\noutput %q {\n  value = <<-EOT\n%s  EOT\n}\n", d.title(), label, indented(heredoc(d.Policy.String())))
		fmt.Fprintf(&main, "\n# %s\n", d.title())
		who := parsePrincipal(d.Of)
		document := "module.policies." + label
		switch {
		case d.Kind == TrustPolicy:
			resources[d.Of] = roles.name(identifier(who.name))
			fmt.Fprintf(&main, "# "+replacesTrust+"resource \"aws_iam_role\" %q {\n  name               = %s\n  path               = %s\n  assume_role_policy = %s\n}\n", resources[d.Of], hclQuote(who.name), hclQuote(who.path), document)
		case d.Kind == PermissionsPolicy && who.kind != "":
			subject := hclQuote(who.name)
			if role := resources[d.Of]; role != "" {
				subject = fmt.Sprintf("aws_iam_role.%s.name", role)
			}
			fmt.Fprintf(&main, "resource \"aws_iam_%s_policy\" %q {\n  name   = %q\n  %-6s = %s\n  policy = %s\n}\n", who.kind, label, d.name(), who.kind, subject, document)
		case d.Kind == BucketPolicy:
			fmt.Fprintf(&main, "# "+replacesBucket+"resource \"aws_s3_bucket_policy\" %q {\n  bucket = %q\n  policy = %s\n}\n", label, bucketName(d.Of), document)
		case d.Kind == KeyPolicy:
			fmt.Fprintf(&main, "# Add the statements of %s to the key's policy.\n", document)
		default:
			fmt.Fprintf(&main, "# Attach %s to %s.\n", document, d.Of)
		}
	}
	return map[string]string{"main.tf": main.String(), "policies/outputs.tf": documents.String()}
}

// account is whose the subject of the document is, or "" if that is not known:
// ARNs of buckets do not say.
func (d PolicyDocument) account() string {
	if parts := strings.Split(d.Of, ":"); len(parts) > 4 {
		return parts[4]
	}
	return ""
}

// inSeveralAccounts reports whether one set of credentials will not do.
func (p Policies) inSeveralAccounts() bool {
	seen := map[string]bool{}
	for _, d := range p {
		if d.Kind == BucketPolicy { // only for another account than the writer's
			return true
		}
		if account := d.account(); account != "" {
			seen[account] = true
		}
	}
	return len(seen) > 1
}

// condition is how a script compares its account to do the document's part.
func (d PolicyDocument) condition() string {
	if d.Kind == BucketPolicy {
		return "!= " + strings.Split(d.Policy.Statement[0].Principal["AWS"], ":")[4]
	}
	if account := d.account(); account != "" {
		return "= " + account
	}
	return ""
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

// identifier is a name as Terraform takes it: it begins with no digit.
func identifier(name string) string {
	name = notIdentifier.ReplaceAllString(name, "_")
	if name != "" && name[0] <= '9' {
		return "_" + name
	}
	return name
}

// unique keeps names apart that are the same as identifiers: of two accounts,
// or a role's and a user's.
type unique map[string]bool

func (u unique) name(name string) string {
	free := name
	for n := 2; u[free]; n++ {
		free = fmt.Sprintf("%s_%d", name, n)
	}
	u[free] = true
	return free
}

// hclQuote quotes for Terraform, where ${ and %{ begin templates.
func hclQuote(text string) string { return heredoc(fmt.Sprintf("%q", text)) }

// heredoc keeps Terraform from reading its templates into a policy.
func heredoc(text string) string {
	return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(text)
}

var plainWord = regexp.MustCompile(`^[0-9A-Za-z_+=,.@/-]+$`)

// shellWord quotes what needs it.
func shellWord(text string) string {
	if plainWord.MatchString(text) {
		return text
	}
	return shellQuote(text)
}

func shellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

func commented(text string) string { return eachLine("# ", text) }
func indented(text string) string  { return eachLine("    ", text) }

func eachLine(before, text string) string {
	return before + strings.ReplaceAll(text, "\n", "\n"+before) + "\n"
}
