#!/bin/sh
# Makes sample.vhdx.gz, the image behind "Try it with a sample": a small disk with a FAT16 and an ext4
# volume, whose free space is full of what was deleted. Stock tools, no root:
#   apt-get install dosfstools e2fsprogs fdisk mtools qemu-utils
# Each run gives the same volumes and files; identifiers and times are new.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
PATH=$PATH:/usr/sbin:/sbin

# text MEBIBYTES WORD: a repeated word. gzip packs a word of up to four bytes best, 1000 to 1.
text() { yes "$2" | head -c "$(($1 * 1048576))"; }

mkdir live old
# What stays says "yes", what is deleted says "del", what was there before says "old".
text 1 yes > live/picture.bmp
text 2 yes > live/film.mov
text 2 del > live/deleted.mov
for n in 1 2 3 4; do
  text 2 del > "old/build$n.log"
  text 1 yes > "old/notes$n.txt"
done

# FAT16 upon a partition that was full of something else before, with files deleted between others.
text 12 old > fat.part
mkfs.fat -F 16 -s 4 -n PICTURES fat.part > /dev/null
for name in deleted.mov picture.bmp film.mov; do mcopy -i fat.part "live/$name" ::; done
mcopy -i fat.part live/deleted.mov ::deleted2.mov
mcopy -i fat.part live/picture.bmp ::picture2.bmp
mdel -i fat.part ::deleted.mov ::deleted2.mov

# ext4, with files deleted between files that stay, upon a partition whose end was never written.
text 15 old > ext4.part
truncate -s 35M ext4.part
mke2fs -q -F -t ext4 -b 4096 -L home -m 0 -J size=4 -N 512 -E lazy_itable_init=0,nodiscard -d old ext4.part
for n in 1 2 3 4; do debugfs -w -R "rm /build$n.log" ext4.part; done 2> /dev/null
e2fsck -fn ext4.part > /dev/null 2>&1

truncate -s 48M disk
printf '%s\n' 'label: dos' 'start=2048, size=12MiB, type=6' 'start=13MiB, size=35MiB, type=83' | sfdisk -q disk > /dev/null
dd if=fat.part of=disk bs=1M seek=1 conv=notrunc status=none
dd if=ext4.part of=disk bs=1M seek=13 conv=notrunc status=none
qemu-img convert -f raw -O vhdx -o subformat=dynamic,block_size=1M disk sample.vhdx
gzip -9n sample.vhdx
mv sample.vhdx.gz "$here/sample.vhdx.gz"

