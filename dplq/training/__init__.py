"""What training needs beside a method: loaders, precision, schedule, seeding."""
