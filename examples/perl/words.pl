#!/usr/bin/perl -T
# The words of a text, by length: /longest, or all.
use strict;
use warnings;

my ($least) = ($ENV{QUERY_STRING} // '') =~ /\bleast=(\d{1,3})\b/;
$least //= 1;
read STDIN, my $text, $ENV{CONTENT_LENGTH} // 0;

my @words = sort { length $b <=> length $a or $a cmp $b } grep { length >= $least } $text =~ /(\w+)/g;
splice @words, 1 if ($ENV{PATH_INFO} // '') eq '/longest';

print "Content-Type: text/plain\n\n";
print "$_\n" for @words;
