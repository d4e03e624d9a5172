package policy

import (
	"fmt"
	"regexp"
	"strings"
)

// Terraform returns the files of a module that sets the policies up, by name. The
// documents are in a separate module without a provider, so that they can be
// reviewed and tested without an account.
//
// Terraform replaces a policy as a whole. A comment at the top of main.tf describes
// how to import and merge existing policies, which the module does not see.
func (s Set) Terraform() map[string]string {
	var documents, main strings.Builder
	documents.WriteString("# The policies of s3sink. This module needs no provider.\n")
	if s.inSeveralAccounts() {
		main.WriteString("# This is for more than one account: apply each part in the account of its ARN.\n\n")
	}
	main.WriteString(terraformReplaces + "terraform {\n  required_providers {\n    aws = {\n      source = \"hashicorp/aws\"\n    }\n  }\n}\n\n" +
		"module \"policies\" {\n  source = \"./policies\"\n}\n")
	labels, roles := unique{}, unique{}
	resources := map[string]string{} // of roles, by ARN
	for _, p := range s {
		label := labels.name(p.label())
		fmt.Fprintf(&documents, "\n# %s\noutput %q {\n  value = <<-EOT\n%s  EOT\n}\n", p.title(), label, indented(heredoc(p.Document.String())))
		fmt.Fprintf(&main, "\n# %s\n", p.title())
		subject := parsePrincipal(p.Of)
		document := "module.policies." + label
		switch {
		case p.Kind == TrustPolicy:
			resources[p.Of] = roles.name(identifier(subject.name))
			main.WriteString(importFirst("aws_iam_role", resources[p.Of], subject.name))
			fmt.Fprintf(&main, "resource \"aws_iam_role\" %q {\n  name               = %s\n  path               = %s\n  assume_role_policy = %s\n}\n", resources[p.Of], hclQuote(subject.name), hclQuote(subject.path), document)
		case p.Kind == Permissions && subject.kind != "":
			name := hclQuote(subject.name)
			if role := resources[p.Of]; role != "" {
				name = fmt.Sprintf("aws_iam_role.%s.name", role)
			}
			main.WriteString(importFirst("aws_iam_"+subject.kind+"_policy", label, subject.name+":"+p.name()))
			fmt.Fprintf(&main, "resource \"aws_iam_%s_policy\" %q {\n  name   = %q\n  %-6s = %s\n  policy = %s\n}\n", subject.kind, label, p.name(), subject.kind, name, document)
		case p.Kind == BucketPolicy:
			main.WriteString(importFirst("aws_s3_bucket_policy", label, bucketName(p.Of)))
			fmt.Fprintf(&main, "resource \"aws_s3_bucket_policy\" %q {\n  bucket = %q\n  policy = %s\n}\n", label, bucketName(p.Of), document)
		case p.Kind == KeyPolicy:
			fmt.Fprintf(&main, "# Add the statements of %s to the key's policy. A resource\n# \"aws_kms_key_policy\" would replace the policy.\n", document)
		default:
			fmt.Fprintf(&main, "# Attach %s to %s.\n", document, p.Of)
		}
	}
	return map[string]string{"main.tf": main.String(), "policies/outputs.tf": documents.String()}
}

// terraformReplaces is the comment at the top of main.tf.
const terraformReplaces = `# Terraform replaces a policy as a whole. If a role, an inline policy or a bucket
# policy of these names exists, import it before the first apply: "terraform plan"
# then shows the statements that would be removed. Without the import, apply fails
# for a role, and removes them unseen for the others. To keep them, merge:
#
#   data "aws_iam_policy_document" "merged" {
#     source_policy_documents = [file("existing.json"), module.policies.NAME]
#   }
#
# and use data.aws_iam_policy_document.merged.json in place of module.policies.NAME.

`

// importFirst is the comment above a resource that may exist.
func importFirst(kind, label, id string) string {
	return fmt.Sprintf("# If it exists: terraform import %s.%s %s\n", kind, label, shellWord(id))
}

// label returns the Terraform name of the policy.
func (p Policy) label() string {
	kind := map[Kind]string{Permissions: "permissions", TrustPolicy: "trust", BucketPolicy: "bucket", KeyPolicy: "key"}[p.Kind]
	subject := parsePrincipal(p.Of)
	switch {
	case subject.kind != "":
		return identifier(kind + "_" + subject.name)
	case p.name() == "s3sink-assume-role":
		return kind + "_caller"
	case p.Kind == Permissions:
		return kind + "_writer"
	}
	return kind
}

var notIdentifier = regexp.MustCompile(`[^0-9A-Za-z_]`)

// identifier turns a name into an identifier of Terraform, which does not begin
// with a digit.
func identifier(name string) string {
	name = notIdentifier.ReplaceAllString(name, "_")
	if name != "" && name[0] <= '9' {
		return "_" + name
	}
	return name
}

// unique adds numbers to names that are equal as identifiers. Names can be equal in
// two accounts, or for a role and a user.
type unique map[string]bool

func (u unique) name(name string) string {
	free := name
	for n := 2; u[free]; n++ {
		free = fmt.Sprintf("%s_%d", name, n)
	}
	u[free] = true
	return free
}

// hclQuote quotes text for Terraform, where ${ and %{ begin templates.
func hclQuote(text string) string { return heredoc(fmt.Sprintf("%q", text)) }

// heredoc escapes the templates of Terraform in text.
func heredoc(text string) string {
	return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(text)
}

func indented(text string) string { return eachLine("    ", text) }
